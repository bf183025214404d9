"""Made-up records, runs and evidence, without playing an episode."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from PIL import Image

from lfpc.boxes import Box
from lfpc.dialogue import Answer, Crop
from lfpc.episode import Stop
from lfpc.evaluation.results import AllRecords, Condition, all_results
from lfpc.metrics.summary import Records
from lfpc.records import EpisodeRecord, TurnRecord, log_record
from lfpc.report.evidence import Evidence, Origin
from lfpc.run_samples import keep_samples
from lfpc.samples import Sample
from lfpc.storage.files import write_json
from lfpc.storage.runs import Kind, RunFolder

NOISE_SIZE = 224, 112
CONFIG = {
    "crop": {"factor": 28, "min_tokens": 1, "max_tokens": 16},
    "seed": 0,
    "protocol": "qwen2_5_vl",
    "model": "made up",
}
_OF_SAMPLE = {field.name for field in fields(Sample)} - {"budget"}


def made_up_record(name: str, correct: float | None = True, **more: Any) -> EpisodeRecord:
    """The record of question `name`, which has a picture of its own.

    Args:
        name: id of the sample.
        correct: the verdict.
        more: further fields of the record; those that only a sample has are the sample's. `sample`
            is taken as it is.
    """
    of_sample = {key: more.pop(key) for key in _OF_SAMPLE & set(more)}
    sample = {"image": Path(f"{name}.png"), "question": "Which colour?", "answer": "red"}
    given = {"sample": Sample(**{"id": name, **sample, **of_sample}), "method": "text", **more}
    return EpisodeRecord(correct=correct, **given)


def crop_turn(corners: tuple[float, float, float, float]) -> TurnRecord:
    """A call whose crop came back."""
    return TurnRecord(
        text=f"look at {corners}", action=Crop(Box(*corners)), view=(56, 28), tokens=11
    )


def made_up_episode(
    n: int, image: Path, *, correct: float | None, says: str = "red", **more: Any
) -> EpisodeRecord:
    """Question `n` about a picture, answered after a crop that grows with `n`; `more` as in
    `made_up_record`.
    """
    share = 0.1 + 0.8 * (n % 10) / 10
    answer = TurnRecord(text=f"<answer>{says}</answer>", action=Answer(says), tokens=3)
    made: dict[str, Any] = {
        "id": f"q{n:05}",
        "question": f"Which colour is thing {n}?",
        "image": image,
        "category": "even" if n % 2 == 0 else "odd",
        "boxes": ((Box(0.0, 0.0, 0.5, 0.5),),),
        "first_view": (112, 56),
        "turns": (crop_turn((0.0, 0.0, share, share)), answer),
        "stop": Stop.ANSWERED,
        "said": says,
        "tool": True,
        "iou": round(share**2 / 0.25 if share <= 0.5 else 0.25 / share**2, 4),
        "coverage": 1.0,
        "crop_area": share**2,
        "visual_tokens": 8 + n % 7,
        "n_turns": 2,
        "seconds": 0.01 * (n % 5 + 1),
    }
    return made_up_record(correct=correct, **{"name": f"q{n:05}", **made, **more})


def noise_pictures(folder: Path, count: int) -> list[Path]:
    """Pictures with something on them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{n}.png" for n in range(count)]
    for n, path in enumerate(paths):
        Image.effect_noise(NOISE_SIZE, 30 + n).convert("RGB").save(path)
    return paths


def made_up_evidence(records: Mapping[tuple[str, str, str, int], Records], **more: Any) -> Evidence:
    """Evidence of records by (arm, budget, probe, seed), with their results."""
    by_condition: AllRecords = {Condition(*key): some for key, some in records.items()}
    made: dict[str, Any] = {
        "records": by_condition,
        "results": all_results(by_condition),
        "origins": {one: Origin({**CONFIG, "probe": one.probe}, {}) for one in by_condition},
    }
    return Evidence(**{**made, **more})


def write_run(
    folder: Path, records: Sequence[EpisodeRecord], kind: Kind, **config: Any
) -> RunFolder:
    """A run folder that holds these records, keyed by sample, and their samples."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {"kind": kind, "format": 2, "config": config})
    write_json(folder / "environment.json", {"python": "3.11.7"})
    run = RunFolder(folder)
    keep_samples(run, [record.sample for record in records])
    for record in records:
        log_record(run, record.sample.id, record)
    return run
