"""The samples folder on the session: which sample is the n-th, what a person changed, and the file
that keeps it.

Every change is written at once, in one step (`write_samples`). A change names what it was made on,
so that two windows never overwrite each other unseen; rows that another program changed meanwhile
are read again first.
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
from lfpc.storage.locks import FolderLock
from lfpc.web.guard import file_within

ProposeBoxes = Callable[[Sample], Sequence[Proposal]]
"""Asks a model where the answer to a sample's question is."""


class ChangedElsewhere(SampleError):
    """A change was made on boxes that are no longer those on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a page sends: the boxes and the decision, for a sample as it was at `revision`."""

    id: str
    revision: str
    boxes: Nested
    boxing: Boxing

    @classmethod
    def from_json(cls, content: bytes, by: str) -> "Change":
        """Read a page's message.

        Raises:
            SampleError: it is not one.
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
    """Names the boxes and the decision of a sample: the same ones have the same name, also after a
    restart.
    """
    boxing = boxing_of(sample)
    content = [lists_of_nested(sample.boxes), boxing.state, boxing.flagged, boxing.note]
    return sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass(slots=True)
class AnnotationSession:
    """One samples folder while a person works on it; get it with `open_session`. Threads may share
    it.
    """

    folder: Path
    by: str
    """Name that changes are kept under."""
    roots: tuple[Path, ...]
    """Folders whose pictures may be shown."""
    order: tuple[str, ...]
    """Ids in the order of the work."""
    proposals: Mapping[str, Sequence[Proposal]]
    ask: ProposeBoxes | None = None
    _samples: dict[str, Sample] = field(default_factory=dict[str, Sample])
    _known: tuple[int, ...] = ()
    """What the file looked like when `_samples` was read or written."""
    _lock: Lock = field(default_factory=Lock)

    def samples(self) -> list[Sample]:
        """All of them, as they are on disk, in the order of the work.

        Raises:
            SampleError: a row is not a sample, or one that was there at the start is gone.
        """
        with self._lock:
            self._refresh()
            return [self._samples[name] for name in self.order]

    def sample(self, number: int) -> Sample:
        """The `number`-th, from 0.

        Raises:
            SampleError: there is none.
        """
        with self._lock:
            self._refresh()
            if not 0 <= number < len(self.order):
                raise SampleError(
                    f"there is no sample number {number + 1}; the folder has {len(self.order)}"
                )
            return self._samples[self.order[number]]

    def picture(self, number: int) -> Path:
        """Path of the `number`-th sample's picture.

        Raises:
            SampleError: there is no such sample.
            PictureError: the picture is outside the folders that may be shown.
        """
        return file_within(self.sample(number).image, self.roots)

    def save(self, number: int, change: Change) -> Sample:
        """Write a change; a change that is on disk already is no conflict.

        Raises:
            ChangedElsewhere: the sample is no longer what the change was made on.
            SampleError: the boxes are not nested, or there is no such sample.
            DiskError: the disk refuses; the file is as it was.
        """
        with self._lock:
            self._refresh()
            before = self._samples.get(change.id)
            if before is None or self.order[number : number + 1] != (change.id,):
                raise ChangedElsewhere("the samples are in another order now; load the page again")
            after = with_boxing(before, change.boxes, change.boxing)
            if revision(after) == revision(before):
                return before
            if change.revision != revision(before):
                raise ChangedElsewhere(
                    "this sample was changed in another window; load it again to see how"
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
    """The session of `folder`, which no other process may have open meanwhile.

    Args:
        folder: samples folder.
        by: name of the person.
        pictures: further folders whose pictures may be shown.
        arrange: the samples to work on, in the order of the work.
        proposals: boxes to take, by sample id.
        ask: asks a model for further ones.
    Raises:
        SampleError: the folder holds no samples, or a row is not one.
        RunError: it is open already, or another process writes there.
    """
    if not folder.is_dir():
        raise SampleError(
            f"{folder}: no such folder; a samples folder holds {SAMPLES_FILE} beside its pictures"
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
    """What of a sample changes: boxes, decision, revision."""
    return {
        "boxes": lists_of_nested(sample.boxes),
        **asdict(boxing_of(sample)),
        "revision": revision(sample),
    }
