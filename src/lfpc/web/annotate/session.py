"""The session of an annotated samples folder: order of the samples, changes, and their file.

Every change is written at once, in one step (`write_samples`). A change carries the revision it was
made on, so that two windows never overwrite each other unnoticed. Changes by other programs are
read first.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

from lfpc.boxing.decisions import (
    Boxing,
    Nested,
    boxing_of,
    lists_of_nested,
    nested_from_lists,
    with_boxing,
)
from lfpc.boxing.proposals import Proposal
from lfpc.caches import file_state
from lfpc.errors import SampleError
from lfpc.samples import SAMPLES_FILE, Sample, read_samples, write_samples
from lfpc.storage.files import FolderLock
from lfpc.storage.near import missing_folder
from lfpc.web.guard import file_within

ProposeBoxes = Callable[[Sample], Sequence[Proposal]]
"""Asks a model for proposals of a sample."""


class ChangedElsewhere(SampleError):
    """A change to boxes that differ from those on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A page's change of a sample: boxes and decision, made on `revision`."""

    id: str
    revision: str
    boxes: Nested
    boxing: Boxing

    @classmethod
    def from_json(cls, content: bytes, by: str) -> "Change":
        """Read a page's message.

        Raises:
            SampleError: not a valid change.
        """
        try:
            found = json.loads(content)
            boxes = nested_from_lists(found["boxes"])
            boxing = Boxing(
                state=found["state"], flagged=found["flagged"], note=found["note"], by=by
            )
            return cls(
                id=str(found["id"]), revision=str(found["revision"]), boxes=boxes, boxing=boxing
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            if isinstance(error, SampleError):
                raise
            raise SampleError(
                f"a change is an object with id, revision, boxes, state, flagged and note "
                f"({error!r})"
            ) from error


def revision(sample: Sample) -> str:
    """Hash of the boxes and the decision of a sample, stable across restarts."""
    boxing = boxing_of(sample)
    content = [lists_of_nested(sample.boxes), boxing.state, boxing.flagged, boxing.note]
    return sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass(slots=True)
class AnnotationSession:
    """One samples folder in work; get it with `open_session`. Threads may share it."""

    folder: Path
    by: str
    """Name that is saved with changes."""
    roots: tuple[Path, ...]
    """Folders whose pictures may be shown."""
    order: tuple[str, ...]
    """Sample ids in working order."""
    proposals: Mapping[str, Sequence[Proposal]]
    ask: ProposeBoxes | None = None
    _samples: dict[str, Sample] = field(default_factory=dict[str, Sample])
    _known: tuple[int, ...] = ()
    """State of the file when `_samples` was read or written."""
    _lock: Lock = field(default_factory=Lock)

    def samples(self) -> list[Sample]:
        """All samples as on disk, in working order.

        Raises:
            SampleError: an invalid row, or a sample that was removed since the start.
        """
        with self._lock:
            self._refresh()
            return [self._samples[name] for name in self.order]

    def sample(self, number: int) -> Sample:
        """The `number`-th, from 0.

        Raises:
            SampleError: no such sample.
        """
        with self._lock:
            self._refresh()
            if not 0 <= number < len(self.order):
                raise SampleError(
                    f"no sample number {number + 1}; the folder has {len(self.order)}"
                )
            return self._samples[self.order[number]]

    def picture(self, number: int) -> Path:
        """Path of the `number`-th sample's picture.

        Raises:
            SampleError: no such sample.
            PictureError: the picture is outside the folders that may be shown.
        """
        return file_within(self.sample(number).image, self.roots)

    def save(self, number: int, change: Change) -> Sample:
        """Write a change. A change that is already on disk is no conflict.

        Raises:
            ChangedElsewhere: the sample has another revision than the change.
            SampleError: boxes that are not nested, or no such sample.
            DiskError: the disk refuses; the file is unchanged.
        """
        with self._lock:
            self._refresh()
            before = self._samples.get(change.id)
            if before is None or self.order[number : number + 1] != (change.id,):
                raise ChangedElsewhere("the order of the samples has changed; reload the page")
            after = with_boxing(before, change.boxes, change.boxing)
            if revision(after) == revision(before):
                return before
            if change.revision != revision(before):
                raise ChangedElsewhere(
                    "this sample was changed in another window; reload it to see the change"
                )
            write_samples({**self._samples, change.id: after}.values(), self.folder)
            self._samples[change.id] = after
            self._known = file_state(self.folder / SAMPLES_FILE)
            return after

    def _refresh(self) -> None:
        if self._known == (now := file_state(self.folder / SAMPLES_FILE)):
            return
        samples = {sample.id: sample for sample in read_samples(self.folder)}
        for sample in samples.values():
            boxing_of(sample)
        if missing := [name for name in self.order if name not in samples]:
            raise SampleError(
                f"{self.folder / SAMPLES_FILE} no longer has sample {missing[0]!r}; start "
                f"lfpc annotate again"
            )
        self._samples = samples
        self._known = now


@contextmanager
def open_session(
    folder: Path,
    *,
    by: str = "",
    pictures: Sequence[Path] = (),
    arrange: Callable[[Sequence[Sample]], Sequence[Sample]] = lambda samples: samples,
    proposals: Mapping[str, Sequence[Proposal]] | None = None,
    ask: ProposeBoxes | None = None,
) -> Iterator[AnnotationSession]:
    """The session of `folder`, which is locked for other processes.

    Args:
        folder: samples folder.
        by: name of the person.
        pictures: further folders whose pictures may be shown.
        arrange: function that selects and orders the samples to work on.
        proposals: proposals by sample id.
        ask: asks a model for further proposals.
    Raises:
        SampleError: no samples in the folder, or an invalid row.
        RunError: another process has the folder open.
    """
    if not folder.is_dir():
        raise SampleError(
            f"{missing_folder(folder)} (a samples folder holds {SAMPLES_FILE} beside its pictures)"
        )
    samples = read_samples(folder)
    if not samples:
        raise SampleError(f"{folder / SAMPLES_FILE} holds no samples")
    order = tuple(sample.id for sample in arrange(samples))
    with FolderLock(folder, again=False):
        session = AnnotationSession(folder, by, (folder, *pictures), order, proposals or {}, ask)
        session.samples()
        yield session


def as_json(sample: Sample) -> dict[str, Any]:
    """The changeable fields of a sample as JSON: boxes, decision, revision."""
    return {
        "boxes": lists_of_nested(sample.boxes),
        **asdict(boxing_of(sample)),
        "revision": revision(sample),
    }
