"""`results.json` of an evaluation, in the shape of lm-evaluation-harness, with the protocol that
produced each number.

    {"results": {TASK: {"acc,none": 0.5, "acc_stderr,none": 0.02, ...}}, "configs": {TASK:
    protocol}, "n-samples": {TASK: {...}}}

A number without its protocol cannot be reproduced: published accuracies of one model differ by up
to 7 points with the script.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image

from lfpc.boxes import WHOLE
from lfpc.dialogue import Context, Crop, Reply, Turn
from lfpc.errors import RunError
from lfpc.evaluate.recorded import first_of
from lfpc.images import CropRules, View
from lfpc.metrics.episodes import Row
from lfpc.metrics.scoring import average_at_k
from lfpc.protocols import ChatProtocol
from lfpc.published.benchmarks import score_benchmark
from lfpc.samples import Sample, row_of_sample
from lfpc.storage.environment import environment
from lfpc.storage.files import write_json
from lfpc.storage.typed import plain

RESULTS_FILE = "results.json"


def write_results(
    path: Path,
    rows: Mapping[str, Sequence[Row]],
    configs: Mapping[str, Mapping[str, Any]],
    *,
    original: Mapping[str, int] | None = None,
) -> dict[str, dict[str, Any]]:
    """Score each task and write everything to `path` in one step.

    Args:
        path: the file, usually `results.json` of a run.
        rows: evaluation rows by task; a task is a benchmark's name, with a setting behind a slash
            where it has several.
        configs: the protocol of each task; see `protocol_block`.
        original: rows of each published set; None: as many as were asked.
    Returns:
        The figures of each task, as `score_benchmark` gives them.
    """
    figures = {task: score_benchmark(task, some) for task, some in rows.items()}
    for task, runs in _repeated(rows).items():
        figures[task] |= average_at_k(runs)
    table = {
        "results": {
            task: {"alias": task} | {f"{name},none": value for name, value in found.items()}
            for task, found in figures.items()
        },
        "configs": {task: plain(configs.get(task, {})) for task in rows},
        "n-samples": {
            task: {"original": (original or {}).get(task, len(some)), "effective": len(some)}
            for task, some in rows.items()
        },
    }
    write_json(path, table)
    return figures


def _repeated(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[Sequence[Row]]]:
    """The runs of each task that was repeated, by the task of the first; repeats that are not whole
    yet are left out.
    """
    runs: dict[str, list[Sequence[Row]]] = {}
    for task, some in rows.items():
        first = first_of(task)
        if first in rows and {row["sample"] for row in some} == {
            row["sample"] for row in rows[first]
        }:
            runs.setdefault(first, []).append(some)
    return {task: some for task, some in runs.items() if len(some) > 1}


def read_results(path: Path) -> dict[str, Any]:
    """What `write_results` wrote to `path`, to be written anew; empty where there is no such file.

    Raises:
        RunError: the file holds something else, which must not be lost.
    """
    if not path.exists():
        return {}
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
        configs = table["configs"]
        counts = table["n-samples"]
        return {
            "configs": dict(configs),
            "original": {task: int(count["original"]) for task, count in counts.items()},
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} holds results of another kind; name the folder of one evaluation below it"
        ) from error


def protocol_block(
    *,
    model: str,
    revision: str | None,
    protocol: ChatProtocol,
    budget: int | None,
    crop: CropRules,
    max_turns: int,
    sampling: Mapping[str, Any],
    coordinates: str,
    data: Mapping[str, Any],
    probe: str = "own",
    tools: bool = True,
    judge: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a number cannot be reproduced without, as JSON holds it.

    Args:
        model: name or folder of the weights.
        revision: their commit or hash, where it is known.
        protocol: how the model was spoken to; its texts enter as one hash.
        budget: visual tokens of the first view; None: each sample's own.
        crop: how a crop becomes a picture.
        max_turns: replies an episode may have.
        sampling: temperature, top_p, max_tokens, seed, runs: whatever the server was told.
        coordinates: in what a box is written and which picture it refers to.
        data: from `data_block`.
        probe: what the crop tool showed.
        tools: whether it was offered.
        judge: `Judge.identity`; None: rules alone.
    """
    return plain(
        {
            "model": model,
            "model_revision": revision,
            "protocol": protocol.name,
            "prompt_sha256": prompt_hash(protocol, tools=tools),
            "stop": protocol.stop,
            "coordinates": coordinates,
            "token_side": protocol.factor,
            "budget": budget,
            "crop": crop,
            "max_turns": max_turns,
            "sampling": sampling,
            "probe": probe,
            "tools": tools,
            "judge": judge,
            "data": data,
            "environment": environment(),
        }
    )


def prompt_hash(protocol: ChatProtocol, *, tools: bool = True) -> str:
    """Hash of every text a model is told: the conversation about a made-up question, two options, a
    crop and no crop.
    """
    view = View(Image.new("RGB", (56, 56)), WHOLE)
    turns = (Turn(Reply("reply"), Crop(WHOLE), view), Turn(Reply("reply"), Crop(WHOLE), None))
    messages = protocol.messages(Context("question", ("first", "second"), view, turns), tools=tools)
    texts = [
        [message.role, *(part if isinstance(part, str) else "<picture>" for part in message.parts)]
        for message in messages
    ]
    return _hash([*texts, protocol.native_tools] if tools and protocol.native_tools else texts)


def data_block(
    samples: Sequence[Sample], *, source: str, seed: int, skipped: int = 0
) -> dict[str, Any]:
    """Which questions were asked: where they came from, how many, and a hash of all of them with
    their pictures' sizes in bytes.

    The hash is the same on another machine and for another work folder.
    """
    asked: list[Any] = []
    for sample in samples:
        row = row_of_sample(sample, sample.image.parent)
        size = sample.image.stat().st_size if sample.image.is_file() else None
        asked.append([{key: value for key, value in row.items() if key != "meta"}, size])
    return {
        "source": source,
        "samples": len(samples),
        "skipped": skipped,
        "option_seed": seed,
        "sha256": _hash(asked),
    }


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
