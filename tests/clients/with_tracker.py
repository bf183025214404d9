"""wandb (offline) or trackio behind lfpc's tracker: with a step, its metrics and an episode; with
none, what the package, or TensorBoard, kept of all steps. wandb may write on until its process has
ended, so another one reads."""

import json
import sys
from pathlib import Path

from PIL import Image

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Crop, Reply, Turn
from lfpc.episode import Episode, Stop
from lfpc.images import View
from lfpc.samples import Sample
from lfpc.training.config import TrainConfig
from lfpc.training.trackers import PROJECT, Hosted

name, out, steps = sys.argv[1], Path(sys.argv[2]), [int(step) for step in sys.argv[3:]]
BLOCK, HEAD = 32768, 7
"""Bytes of a block of wandb's file (LevelDB's log format), and of the head of it and of a part."""


def played():
    whole, half = Image.new("RGB", (112, 84), "red"), Box(0, 0, 0.5, 0.5)
    asked = Turn(Reply("look"), Crop(half), View(Image.new("RGB", (56, 28), "blue"), half))
    sample = Sample(id="s", image=out / "s.png", question="Which?", answer="7")
    turns = (asked, Turn(Reply("<answer>7</answer>"), Answer("7")))
    return Episode(sample, View(whole, WHOLE), turns, Stop.ANSWERED)


def kept_by_trackio():
    from trackio.sqlite_storage import SQLiteStorage

    for run in SQLiteStorage.get_runs(PROJECT):
        yield from ({"run": run, **row} for row in SQLiteStorage.get_logs(PROJECT, run))


def kept_by_wandb():
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(out.glob("wandb/offline-run-*/*.wandb")):
        record = Record()
        for data in log_records(file.read_bytes()):
            record.ParseFromString(data)
            if record.HasField("history"):
                row = {}
                for item in record.history.item:
                    *outer, key = item.nested_key or [item.key]
                    inner = row.setdefault(outer[0], {}) if outer else row
                    inner[key] = json.loads(item.value_json)
                yield {"run": file.stem.removeprefix("run-"), "step": row["_step"], **row}


def kept_by_tensorboard():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard")).Reload()
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            yield {"step": event.step, name: event.value}


def log_records(data):
    """The records of a log: each in parts of kind 1 (whole), or 2 (first), 3 and 4 (last)."""
    at, record = HEAD, b""
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:  # no room for a head: zeros
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + HEAD : at + HEAD + size]
        at += HEAD + size
        if kind in (1, 4):
            yield record
            record = b""


for step in steps:
    tracker = Hosted(name, TrainConfig(out=out), "abc")
    tracker.numbers({"step": step, "reward": step / 4, "loss": -0.5, "iou": None}, step)
    tracker.episode(played(), step)
    tracker.close()
kept = {
    "wandb": kept_by_wandb,
    "trackio": kept_by_trackio,
    "tensorboard": kept_by_tensorboard,
}[name]
print(json.dumps([] if steps else list(kept()), default=str))
