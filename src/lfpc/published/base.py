"""What an importer is, and what importers share: rows that are read later, questions with or
without options, boxes of our own rows.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lfpc.errors import SampleError
from lfpc.published.files import TableRow, read_records
from lfpc.published.pictures import PictureStore
from lfpc.published.rejections import Rejected, RejectReason
from lfpc.published.rows import lettered, split_options
from lfpc.samples import Sample, sample_from_row

KEPT = "lfpc"
"""Column of our own exports that holds what the published layout has no place for, so that nothing
is lost on the way back."""
Make = Callable[[TableRow, PictureStore], Sample]
"""A row -> its sample; any LfpcError or value of another kind rejects the row."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A row that has not been made a sample yet: rows that an interrupted import has done already
    never are.
    """

    record: TableRow
    store: PictureStore
    make: Make


Found = Iterator[Pending | Sample | SampleError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where an importer finds things, and where pictures go."""

    pictures: Path
    """Folder of stored pictures."""
    roots: tuple[Path, ...] = ()
    """Folders that relative picture names start at, besides the one of the file that names them."""
    strip: tuple[str, ...] = ()
    """Beginnings of picture names that are taken off."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Field of a sample -> column, for the generic importer."""

    def store(self, beside: Path) -> PictureStore:
        """The store for rows of a file in the folder `beside`."""
        return PictureStore(self.pictures, roots=(beside, *self.roots), strip=self.strip)


Importer = Callable[[Path, Places], Found]
"""Of a published layout: (folder or file, places) -> what is in it, in its order."""


def pending_rows(files: Iterable[Path], places: Places, make: Make) -> Found:
    """Every row of `files`, to be made a sample later."""
    for file in files:
        store = places.store(file.parent)
        for record in read_records(file):
            yield record if isinstance(record, SampleError) else Pending(record, store, make)


def one_picture(cells: Any, store: PictureStore) -> Path:
    """The file of the only picture of a row, whose column holds one cell or a list with one.

    Raises:
        Rejected: there are several, or none.
        PictureError: it is not usable.
    """
    if isinstance(cells, Sequence) and not isinstance(cells, str | bytes | bytearray):
        if len(cells) != 1:
            reason = RejectReason.SEVERAL_PICTURES if cells else RejectReason.MISSING
            raise Rejected(reason, f"{len(cells)} pictures; a sample is about one")
        cells = cells[0]
    return store.file_of(cells)


def plain_question(text: str) -> str:
    """A question without the mark that stands for its picture."""
    return text.replace("<image>", "").strip()


def with_options(text: str, answer: str) -> tuple[str, tuple[str, ...], str]:
    """Question, options and answer of a text that may end in lettered options.

    Where the answer is none of them, the question is an open one about the text as it stands:
    nothing is lost.
    """
    question, options = split_options(text)
    try:
        return (
            (question, options, lettered(answer, options))
            if options and question
            else (text, (), answer)
        )
    except SampleError:
        return text, (), answer


def kept_fields(row: Mapping[str, Any], sample: Sample) -> Sample:
    """`sample` with what one of our own exports keeps beside the published columns."""
    if not (kept := row.get(KEPT)):
        return sample
    try:
        found = json.loads(kept)
    except (ValueError, TypeError, RecursionError) as error:
        raise SampleError(f"column {KEPT!r} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise SampleError(f"column {KEPT!r} is not a JSON object")
    return replace(sample_from_row({**found, "image": "."}, Path()), image=sample.image)
