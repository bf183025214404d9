"""Proposals of boxes for a person to accept, and the order of samples to box.

Both come from recorded runs: a crop before a right answer probably shows the target, and a model
can learn from samples that it often fails.
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
"""Minimum IoU of crops that count as one proposal."""
MOST = 9
"""Maximum proposals per sample, one per digit key."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A box with its source, and its number of right episodes with such a crop."""

    box: Box
    source: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Number of answers and of wrong answers to a sample."""

    asked: int
    failed: int

    @property
    def rate(self) -> float:
        """Share of wrong answers, in [0, 1]."""
        return self.failed / self.asked


def own_records(root: Path) -> Iterator[EpisodeRecord]:
    """Records of training runs and evaluations at or below `root`, without probes and failed
    questions.

    Raises:
        RunError: no records.
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
    """Proposals by sample id: crops before right answers, similar ones merged, the most frequent
    first.

    Args:
        records: recorded episodes.
        source: name of the proposals on the page.
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
    """Failure counts by sample id; records without a verdict do not count."""
    asked: defaultdict[str, list[bool]] = defaultdict(list)
    for record in records:
        if record.correct is not None:
            asked[record.sample.id].append(bool(record.correct))
    return {
        name: FailureCount(len(verdicts), verdicts.count(False)) for name, verdicts in asked.items()
    }


def hardest_first(samples: Sequence[Sample], records: Mapping[str, FailureCount]) -> list[Sample]:
    """Samples by falling share of wrong answers, ties by their number; samples without answers
    last.
    """

    def rank(sample: Sample) -> tuple[bool, float, int]:
        record = records.get(sample.id)
        return (False, 0.0, 0) if record is None else (True, record.rate, record.failed)

    return sorted(samples, key=rank, reverse=True)
