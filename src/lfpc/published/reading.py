"""Shared parts of readers of published files: rows to samples or rejections."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lfpc.errors import DiskError, LfpcError, SampleError
from lfpc.published.cells import absent, plain_answer
from lfpc.published.files import TableRow, files_like, is_saved_dataset, read_rows
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import Found, PendingRow, ReadOptions
from lfpc.published.rejections import Rejected, Rejection, RejectReason, reason_of
from lfpc.samples import Sample, sample_from_row

KEPT = "lfpc"
"""Column of our own exports with the fields that the published layout lacks, so that an import
restores them."""


def pending_rows(
    files: Iterable[Path],
    options: ReadOptions,
    make: Callable[[TableRow, PictureStore], Sample],
    *,
    beside: Sequence[str] = ("",),
) -> Iterator[Found]:
    """Every row of `files` as a `PendingRow`.

    Args:
        files: files of rows, in their published order.
        options: options of the reader.
        make: (row, pictures) -> sample.
        beside: folders of picture names, relative to the folder of their file.
    """
    for file in files:
        store = options.store(*(file.parent / name for name in beside))
        for row in read_rows(file):
            yield (
                row if isinstance(row, SampleError) else PendingRow(row, partial(make, row, store))
            )


def reader(
    *patterns: str,
    make: Callable[[TableRow, PictureStore], Sample],
    beside: Sequence[str] = ("",),
) -> Callable[[Path, ReadOptions], Iterator[Found]]:
    """The `read` function of a set whose files match the first successful pattern, or were saved
    by Hugging Face's `save_to_disk`.

    Args:
        patterns: see `files_like`.
        make: (row, pictures) -> sample.
        beside: see `pending_rows`.
    """

    def read(src: Path, options: ReadOptions) -> Iterator[Found]:
        files = [src] if is_saved_dataset(src) else files_like(src, *patterns)
        return pending_rows(files, options, make, beside=beside)

    return read


def sample_of(found: Found, finish: Callable[[Sample], Sample] | None = None) -> Sample | Rejection:
    """The sample of a row, or its rejection.

    Args:
        found: item of a file.
        finish: applied to the sample; its exceptions reject the row too.
    """
    match found:
        case SampleError():
            return Rejection("", reason_of(found), str(found))
        case PendingRow():
            where = found.row.where
            source = text_of(found.row.values, "data_source")
        case Sample():
            where = f"sample {found.id!r}"
            source = found.source
    try:
        sample = found.make() if isinstance(found, PendingRow) else found
        return finish(sample) if finish else sample
    except DiskError:  # for any row
        raise
    except LfpcError as error:
        return Rejection(where, reason_of(error), str(error), source)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        wrong = f"a value of the wrong kind ({type(error).__name__}: {error})"
        return Rejection(where, RejectReason.ROW, wrong, source)


def need(row: Mapping[str, Any], *names: str) -> Any:
    """The first present value of the columns `names` in a row.

    Raises:
        SampleError: all are missing, null, NaN or empty; the message names the row's columns.
    """
    for name in names:
        if not absent(row.get(name)):
            return row[name]
    raise missing_column(row, *names)


def missing_column(row: Mapping[str, Any], *names: str) -> SampleError:
    """The error for a row without a value in any of the columns `names`."""
    wanted = " or ".join(map(repr, names))
    if any(name in row for name in names):
        return SampleError(f"no {wanted}: the value is empty, null or NaN")
    return SampleError(f"no {wanted}; the row has {', '.join(map(str, row)) or 'no columns'}")


def text_of(row: Mapping[str, Any], *names: str, default: str = "") -> str:
    """The text of the first present value of the columns `names`; `default` without one."""
    return next((str(row[name]) for name in names if not absent(row.get(name))), default)


def answer_of(row: Mapping[str, Any], *names: str) -> str:
    """The reference answer in the first present of the columns `names`, see `plain_answer`.

    Raises:
        SampleError: no answer, or several.
    """
    return plain_answer(need(row, *names))


def one_picture(cells: Any, store: PictureStore) -> Path:
    """The file of a row's only picture, in a cell or a list of one; bytes may be a list of numbers.

    Raises:
        Rejected: several pictures, or none.
        PictureError: unusable picture.
    """
    if isinstance(cells, Sequence) and not isinstance(cells, str | bytes | bytearray):
        if len(cells) > 1 and all(isinstance(cell, int) and 0 <= cell < 256 for cell in cells):
            return store.file_of(bytes(cells))
        if len(cells) != 1:
            reason = RejectReason.SEVERAL_PICTURES if cells else RejectReason.MISSING
            raise Rejected(reason, f"{len(cells)} pictures; a sample is about one")
        cells = cells[0]
    return store.file_of(cells)


def plain_question(text: str) -> str:
    """A question without its picture placeholder."""
    return text.replace("<image>", "").strip()


def kept_fields(row: Mapping[str, Any], sample: Sample) -> Sample:
    """`sample` with the fields that our own exports keep beside the published columns."""
    if not (kept := row.get(KEPT)):
        return sample
    try:
        found = json.loads(kept)
    except (ValueError, TypeError, RecursionError) as error:
        raise SampleError(f"column {KEPT!r} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise SampleError(f"column {KEPT!r} is not a JSON object")
    return replace(sample_from_row({**found, "image": "."}, Path()), image=sample.image)
