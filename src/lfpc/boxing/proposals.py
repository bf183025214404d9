"""Boxes that a person may take instead of drawing them, and the order in which samples are worth
boxing.

Both come from recorded runs: a crop that led to the right answer probably shows what the answer
needs, and a sample that a model often fails is one from which it can learn.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lfpc.boxes import Box, iou
from lfpc.dialogue import Crop
from lfpc.errors import RunError
from lfpc.evaluation.probes import OWN
from lfpc.records import EpisodeRecord, read_records
from lfpc.samples import Sample
from lfpc.storage.runs import CONFIG_FILE, Kind, is_run, read_run

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


def own_records(root: Path) -> Iterator[EpisodeRecord]:
    """Episodes at or below `root` in which the policy saw its own crops, of training runs and of
    evaluations: probes and failed questions are left out.

    Raises:
        RunError: there are none.
    """
    found = False
    for file in sorted(root.rglob(CONFIG_FILE)) if root.is_dir() else []:
        if not is_run(file.parent):
            continue
        run = read_run(file.parent)
        probe = run.config.get("probe", OWN) if run.kind == Kind.EVALUATION else OWN
        if run.kind not in (Kind.EVALUATION, Kind.TRAIN) or probe != OWN:
            continue
        for record in read_records(run).values():
            if not record.failed:
                found = True
                yield record
    if not found:
        raise RunError(
            f"{root}: no recorded episodes at or below it; name the folder of a training "
            f"run or of an evaluation"
        )


def crop_proposals(records: Iterable[EpisodeRecord], source: str) -> dict[str, list[Proposal]]:
    """For each sample the crops that led to its right answer: the most frequent first, alike ones
    counted together.

    Args:
        records: recorded episodes.
        source: what the page calls them.
    """
    crops: defaultdict[str, list[Box]] = defaultdict(list)
    for record in records:
        if record.correct == 1:
            crops[record.sample.id] += [
                turn.action.box
                for turn in record.turns
                if isinstance(turn.action, Crop) and turn.view
            ]
    return {name: _grouped(boxes, source) for name, boxes in crops.items() if boxes}


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


def failure_counts(records: Iterable[EpisodeRecord]) -> dict[str, FailureCount]:
    """How often each sample was asked, and how often the answer was wrong; records without a
    verdict do not count.
    """
    asked: defaultdict[str, list[bool]] = defaultdict(list)
    for record in records:
        if record.correct is not None:
            asked[record.sample.id].append(bool(record.correct))
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
