"""Boxes that a person may take instead of drawing them, and the order in which samples are worth
boxing.

Both come from recorded runs: a crop that led to the right answer probably shows what the answer
needs, and a sample that a model often fails is one from which it can learn.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfpc.boxes import Box, iou
from lfpc.errors import BoxError, RunError
from lfpc.samples import Sample
from lfpc.storage.runs import EPISODES_FILE, RunFolder, read_run

Row = Mapping[str, Any]
SAME = 0.5
"""Crops whose IoU is at least this are one proposal."""
MOST = 9
"""Proposals of a sample: each has a digit key."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A box, who proposed it, and in how many right episodes such a crop was made."""

    box: Box
    source: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How often a sample was asked, and how often the answer was wrong."""

    asked: int
    failed: int

    @property
    def rate(self) -> float:
        """Share of wrong answers, in [0, 1]."""
        return self.failed / self.asked


def recorded_rows(run: Path) -> Iterator[Row]:
    """Episodes at or below `run` in which the policy saw its own crops: rows of probes and failed
    requests are left out.

    Raises:
        RunError: there are none.
    """
    found = False
    for file in sorted(run.rglob(EPISODES_FILE)) if run.is_dir() else []:
        if _probe(file.parent) not in (None, "own"):
            continue
        for row in RunFolder(file.parent).episodes().values():
            if (
                "sample" in row
                and "turns" in row
                and "error" not in row
                and row.get("probe", "own") == "own"
            ):
                found = True
                yield row
    if not found:
        raise RunError(
            f"{run}: no recorded episodes at or below it; name the folder of a training "
            f"run or of an evaluation"
        )


def _probe(folder: Path) -> Any:
    try:
        return read_run(folder).config.get("probe")
    except RunError:
        return None


def crop_proposals(rows: Iterable[Row], source: str) -> dict[str, list[Proposal]]:
    """For each sample the crops that led to its right answer: the most frequent first, alike ones
    counted together.

    Args:
        rows: recorded episodes.
        source: what the page calls them.
    """
    crops: defaultdict[str, list[Box]] = defaultdict(list)
    for row in rows:
        if row.get("correct") is True:
            crops[str(row["sample"])].extend(_crops(row))
    return {name: _grouped(boxes, source) for name, boxes in crops.items() if boxes}


def _crops(row: Row) -> Iterator[Box]:
    for turn in row["turns"]:
        if turn["action"].get("kind") == "crop" and turn.get("view"):
            try:
                yield Box(*map(float, turn["action"]["box"]))
            except (BoxError, TypeError, ValueError):  # what a run wrote is data
                continue


def _grouped(boxes: Sequence[Box], source: str) -> list[Proposal]:
    groups: list[list[Box]] = []
    for box in boxes:
        fitting = next((group for group in groups if iou(group[0], box) >= SAME), None)
        if fitting is None:
            groups.append([box])
        else:
            fitting.append(box)
    groups.sort(key=len, reverse=True)
    return [Proposal(group[0], source, len(group)) for group in groups[:MOST]]


def failure_records(rows: Iterable[Row]) -> dict[str, FailureCount]:
    """How often each sample was asked, and how often the answer was wrong; rows without a verdict
    do not count.
    """
    asked: defaultdict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if isinstance(row.get("correct"), bool):
            asked[str(row["sample"])].append(row["correct"])
    return {
        name: FailureCount(len(verdicts), verdicts.count(False)) for name, verdicts in asked.items()
    }


def hardest_first(samples: Sequence[Sample], records: Mapping[str, FailureCount]) -> list[Sample]:
    """Samples by their share of wrong answers, the one failed more often first among equals; those
    never asked come last.
    """

    def rank(sample: Sample) -> tuple[bool, float, int]:
        record = records.get(sample.id)
        return (False, 0.0, 0) if record is None else (True, record.rate, record.failed)

    return sorted(samples, key=rank, reverse=True)
