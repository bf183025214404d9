"""Boxes of one sample in another tool's file, and their conversion to the nested boxes of a
`Sample`.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lfpc.boxes import Box, coverage, iou
from lfpc.boxing.decisions import Nested, State, boxing_of, with_boxing
from lfpc.errors import SampleError
from lfpc.samples import Sample

NESTED = 1 - 1e-6
"""Share of a box that must lie inside the next one, as `Sample` requires."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A box with its target and level, both from 0, if the file has them."""

    box: Box
    target: int | None = None
    level: int | None = None


@dataclass(frozen=True, slots=True)
class BoxEntry:
    """Boxes of one sample; `sample` is its id, or "" if the file names only the picture."""

    sample: str
    picture: str
    boxes: Nested
    state: State


def nested(placed: Sequence[Placed]) -> Nested:
    """Boxes by target, tightest first: as in the file if every box has a place, else by
    containment.
    """
    if any(one.target is None or one.level is None for one in placed):
        return grouped([one.box for one in placed])
    targets: defaultdict[int, list[Placed]] = defaultdict(list)
    for one in placed:
        targets[one.target or 0].append(one)
    return tuple(
        tuple(one.box for one in sorted(targets[t], key=lambda one: one.level or 0))
        for t in sorted(targets)
    )


def grouped(boxes: Iterable[Box]) -> Nested:
    """Boxes grouped into targets: each box joins the target that it contains, of several the
    tightest fit.
    """
    targets: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: box.area):
        inside = [target for target in targets if coverage(box, target[-1]) >= NESTED]
        if inside:
            max(inside, key=lambda target: iou(box, target[-1])).append(box)
        else:
            targets.append([box])
    return tuple(tuple(target) for target in targets)


def with_entries(
    samples: Sequence[Sample], entries: Iterable[BoxEntry], folder: Path
) -> tuple[list[Sample], list[BoxEntry]]:
    """`samples` with the boxes of `entries`, and the entries without a sample.

    A "todo" entry never replaces a person's decision.

    Args:
        samples: samples of `folder`.
        entries: entries of the file; of several for one sample the last counts.
        folder: folder of relative picture paths.
    Raises:
        SampleError: boxes that are not nested, or an entry that names only a picture of several
            samples.
    """
    changed = {sample.id: sample for sample in samples}
    pictures = _by_picture(samples, folder)
    unknown: list[BoxEntry] = []
    for entry in entries:
        name = entry.sample if entry.sample in changed else _only_sample(entry, pictures)
        if name is None:
            unknown.append(entry)
            continue
        boxing = boxing_of(changed[name])
        if entry.state != "todo" or (entry.boxes and boxing.state == "todo"):
            changed[name] = with_boxing(
                changed[name], entry.boxes, replace(boxing, state=entry.state)
            )
    return [changed[sample.id] for sample in samples], unknown


def _by_picture(samples: Sequence[Sample], folder: Path) -> Mapping[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for sample in samples:
        found[Path(os.path.relpath(sample.image, folder)).as_posix()].add(sample.id)
        found[sample.image.name].add(sample.id)
    return found


def _only_sample(entry: BoxEntry, pictures: Mapping[str, set[str]]) -> str | None:
    if entry.sample:
        return None
    names = pictures.get(entry.picture) or pictures.get(PurePosixPath(entry.picture).name) or set()
    if len(names) > 1:
        raise SampleError(
            f"the file has boxes for picture {entry.picture!r}, which {len(names)} "
            f"samples share; it must name the sample"
        )
    return next(iter(names), None)
