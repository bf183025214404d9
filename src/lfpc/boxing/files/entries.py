"""Boxes of one sample in another tool's file, and their conversion to the nested boxes of a
`Sample`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from lfpc.boxes import Box, coverage, iou
from lfpc.boxing.decisions import Nested, State, boxing_of, with_boxing
from lfpc.errors import PictureError, SampleError
from lfpc.picture_files import Frame, frame_of
from lfpc.samples import Sample

NESTED = 1 - 1e-6
"""Share of a box that must lie inside the next one, as `Sample` requires."""

_Path = tuple[str, ...]
"""The folders and the name of a path."""

_UPLOADED = re.compile(r"(?<=/)[0-9a-f]{8}-(?=[^/]+$)")
"""What Label Studio puts before the name of an uploaded file."""


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


def no_frame(sample: str, picture: str) -> None:
    """The frame of no picture, for a file that is read by itself."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader of a file knows of the samples, and what it does with an entry that is not
    usable.
    """

    frame_at: Callable[[str, str], Frame | None] = no_frame
    """(sample id or "", picture name) -> the frame of the picture; None: unknown."""
    problems: list[SampleError] | None = None
    """Takes the reason of each entry that is not usable; None: the first one is raised."""

    def skip(self, error: SampleError) -> None:
        """Leave an entry out, or raise its reason."""
        if self.problems is None:
            raise error
        self.problems.append(error)


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


class SampleIndex:
    """Samples by id and by their pictures' names."""

    def __init__(self, samples: Sequence[Sample], folder: Path) -> None:
        """Index samples of `folder`, to which picture names may be relative."""
        self._samples = {sample.id: sample for sample in samples}
        self._by_name: defaultdict[str, list[tuple[tuple[_Path, _Path], Sample]]] = defaultdict(
            list
        )
        for sample in samples:
            inside = os.path.relpath(sample.image, folder)
            whole = str(sample.image.parent.resolve() / sample.image.name)
            self._by_name[sample.image.name].append(((_parts(inside), _parts(whole)), sample))

    def ids(self, sample: str, picture: str) -> list[str]:
        """Ids of the samples that an entry is about: the named one, or those whose pictures share
        the longest end of the path.
        """
        if sample in self._samples:
            return [sample]
        return [] if sample else [found.id for found in self._showing(picture)]

    def frame_at(self, sample: str, picture: str) -> Frame | None:
        """The frame of the picture that an entry is about; None: no such sample, or it does not
        open.
        """
        named = self._samples.get(sample)
        found = [named] if named else self._showing(picture)
        try:
            return frame_of(found[0].image) if found else None
        except PictureError:
            return None

    def _showing(self, picture: str) -> list[Sample]:
        bare = picture.rpartition("?d=")[2]
        for name in dict.fromkeys((bare, unquote(bare), _UPLOADED.sub("", bare))):
            parts = _parts(name)
            found = self._by_name.get(parts[-1], [])
            ends = [max(_shared_end(parts, path) for path in paths) for paths, _ in found]
            if found:
                return [
                    sample for (_, sample), end in zip(found, ends, strict=True) if end == max(ends)
                ]
        return []


def _parts(path: str) -> _Path:
    """The parts of a path of any system; of a relative one, "" first."""
    return ("", *PurePosixPath(path.replace("\\", "/")).parts)


def _shared_end(one: _Path, other: _Path) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def with_entries(
    samples: Sequence[Sample],
    entries: Iterable[BoxEntry],
    folder: Path,
    reading: Reading | None = None,
) -> tuple[list[Sample], list[BoxEntry]]:
    """`samples` with the boxes of `entries`, and the entries without a sample.

    A "todo" entry never replaces a person's decision.

    Args:
        samples: samples of `folder`.
        entries: entries of the file; of several for one sample the last counts.
        folder: folder of relative picture paths.
        reading: what to do with an entry that is not usable.
    Raises:
        SampleError: unless `reading` skips it, an entry whose boxes are not nested, or that names
            only a picture of several samples.
    """
    reading = reading or Reading()
    index = SampleIndex(samples, folder)
    changed = {sample.id: sample for sample in samples}
    unknown: list[BoxEntry] = []
    for entry in entries:
        names = index.ids(entry.sample, entry.picture)
        if not names:
            unknown.append(entry)
            continue
        try:
            if len(names) > 1:
                raise SampleError(
                    f"the file has boxes for picture {entry.picture!r}, which {len(names)} "
                    f"samples share; it must name the sample"
                )
            before = changed[names[0]]
            boxing = boxing_of(before)
            if entry.state != "todo" or (entry.boxes and boxing.state == "todo"):
                decided = replace(boxing, state=entry.state)
                changed[before.id] = with_boxing(before, entry.boxes, decided)
        except SampleError as error:
            reading.skip(error)
    return [changed[sample.id] for sample in samples], unknown
