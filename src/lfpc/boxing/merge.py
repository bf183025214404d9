"""Merging of two people's copies of one samples folder, with their agreement.

If only one person decided, that decision counts. If both did, the first person's boxes are kept. If
the boxes differ much, or one skipped what the other boxed, the sample is flagged, with the other's
boxes as proposals.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from lfpc.boxes import iou
from lfpc.boxing.decisions import (
    LONGEST_NOTE,
    Boxing,
    Nested,
    boxing_of,
    lists_of_nested,
    nested_from_lists,
    with_boxing,
)
from lfpc.boxing.proposals import Proposal
from lfpc.errors import SampleError
from lfpc.samples import Sample

OTHER_KEY = "other_boxes"
"""Field of a sample's `meta` with the boxes that were not kept, and who drew them."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two people's boxes of one sample."""

    tightest: tuple[float, ...]
    """IoU of each target's B_1; 0 for a target of only one person."""
    wider: tuple[float, ...]
    """IoU of the wider boxes of common targets, for the levels that both drew."""

    @property
    def mean(self) -> float:
        """Mean IoU of the tightest boxes, in [0, 1]; 1 without boxes."""
        return fmean(self.tightest) if self.tightest else 1.0


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged samples, with agreements and flags."""

    samples: list[Sample]
    agreements: Mapping[str, Agreement]
    """Agreement by sample id, for samples that both boxed."""
    flagged: tuple[str, ...]
    """Ids of flagged samples."""


def agreement(a: Nested, b: Nested) -> Agreement:
    """Agreement of two people's boxes, with targets paired for the greatest total IoU of the
    tightest boxes.

    An unpaired target, or a pair without overlap, counts 0.
    """
    overlaps = np.array([[iou(p[0], q[0]) for q in b] for p in a]).reshape(len(a), len(b))
    pairs = [
        (i, j) for i, j in zip(*linear_sum_assignment(-overlaps), strict=True) if overlaps[i, j] > 0
    ]
    alone = len(a) + len(b) - 2 * len(pairs)
    wider = [iou(p, q) for i, j in pairs for p, q in zip(a[i][1:], b[j][1:], strict=False)]
    return Agreement((*(float(overlaps[i, j]) for i, j in pairs), *[0.0] * alone), tuple(wider))


def merged(a: Sequence[Sample], b: Sequence[Sample], *, least: float = 0.5) -> Merged:
    """The merged samples of two copies of one folder, in the order of `a`, then those only in `b`.

    Args:
        a, b: the two people's samples.
        least: mean IoU of the tightest boxes below which a sample is flagged.
    Raises:
        SampleError: a sample with different questions, answers or pictures, so not copies of one
            folder.
    """
    other = {sample.id: sample for sample in b}
    samples: list[Sample] = []
    agreements: dict[str, Agreement] = {}
    flagged: list[str] = []
    for mine in a:
        theirs = other.pop(mine.id, None)
        if theirs is None:
            samples.append(mine)
            continue
        _check_same_question(mine, theirs)
        fit = agreement(mine.boxes, theirs.boxes) if _boxed(mine) and _boxed(theirs) else None
        if fit is not None:
            agreements[mine.id] = fit
        one, needs_look = _resolved(mine, theirs, fit, least)
        samples.append(one)
        if needs_look:
            flagged.append(mine.id)
    return Merged([*samples, *other.values()], agreements, tuple(flagged))


def _boxed(sample: Sample) -> bool:
    return boxing_of(sample).state == "done"


def _content(sample: Sample) -> tuple[Any, ...]:
    boxing = boxing_of(sample)
    return sample.boxes, boxing.state, boxing.flagged, boxing.note


def _check_same_question(a: Sample, b: Sample) -> None:
    for name in ("question", "answer", "options"):
        if getattr(a, name) != getattr(b, name):
            raise SampleError(
                f"sample {a.id!r} has another {name} in the second folder; only copies of "
                f"one folder can be merged"
            )
    if a.image.name != b.image.name:
        raise SampleError(
            f"sample {a.id!r} shows {a.image.name} in the first folder and {b.image.name} "
            f"in the second; they are not copies"
        )


def _resolved(a: Sample, b: Sample, fit: Agreement | None, least: float) -> tuple[Sample, bool]:
    """The merged sample, and whether it is flagged."""
    untouched = [one for one in (b, a) if boxing_of(one) == Boxing()]
    if untouched or _content(a) == _content(b):
        kept = a if b in untouched or not untouched else b
        return (a if kept is a else with_boxing(a, kept.boxes, boxing_of(kept))), False
    kept, left = (b, a) if _boxed(b) and not _boxed(a) else (a, b)
    mine = boxing_of(kept)
    theirs = boxing_of(left)
    boxing = replace(
        mine,
        flagged=mine.flagged or theirs.flagged,
        note="; ".join(filter(None, dict.fromkeys((mine.note, theirs.note))))[:LONGEST_NOTE],
    )
    both_open = "todo" in (mine.state, theirs.state)
    if (fit is not None and fit.mean >= least) or (fit is None and both_open):
        return with_boxing(a, kept.boxes, boxing), False
    reason = (
        f"boxes differ, IoU {fit.mean:.2f}"
        if fit
        else f"{mine.by or 'one'}: {mine.state}, {theirs.by or 'the other'}: {theirs.state}"
    )
    found = with_boxing(
        a,
        kept.boxes,
        replace(
            boxing, flagged=True, note="; ".join(filter(None, (reason, boxing.note)))[:LONGEST_NOTE]
        ),
    )
    others = {"by": theirs.by, "boxes": lists_of_nested(left.boxes)}
    return replace(found, meta={**found.meta, OTHER_KEY: others}) if left.boxes else found, True


def other_proposals(sample: Sample) -> list[Proposal]:
    """The boxes that a merge did not keep, as proposals. Invalid boxes are ignored."""
    found = sample.meta.get(OTHER_KEY)
    if not isinstance(found, Mapping):
        return []
    try:
        nested = nested_from_lists(found.get("boxes"))
    except SampleError:
        return []
    source = f"boxes of {found.get('by') or 'the other'}"
    return [Proposal(box, source) for target in nested for box in target]


def summary(agreements: Iterable[Agreement]) -> dict[str, Any]:
    """Agreement over samples as numbers, for the tightest boxes and the wider ones."""
    found = list(agreements)
    tightest = [value for one in found for value in one.tightest]
    wider = [value for one in found for value in one.wider]
    return {
        "samples": len(found),
        "targets": len(tightest),
        "iou_tightest": fmean(tightest) if tightest else None,
        "at_least_half": fmean(value >= 0.5 for value in tightest) if tightest else None,
        "iou_wider": fmean(wider) if wider else None,
        "one_sided": tightest.count(0.0),
    }
