"""Rows of published files, one at a time: files may be far larger than memory.

The meaning of a row is decided elsewhere. An unreadable row is a SampleError among the others, and
the next row follows.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lfpc.errors import SampleError

LARGEST_CELL = 512 * 1024 * 1024
"""Maximum characters of a TSV cell; a longer one means an unclosed quotation mark."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a file, with its values by column name."""

    file: Path
    number: int
    """Number of the row in the file, from 1."""
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        """Name of the row in errors, such as "file.tsv: row 3"."""
        return f"{self.file}: row {self.number}"


def files_like(folder: Path, *patterns: str) -> list[Path]:
    """Files below `folder` that match the first successful pattern, sorted; `folder` itself if it
    is a file.

    A pattern is matched with the lower-case path below `folder`; its `*` crosses folders.

    Raises:
        SampleError: nothing matches.
    """
    if folder.is_file():
        return [folder]
    there = {
        file.relative_to(folder).as_posix().lower(): file
        for file in folder.rglob("*")
        if file.is_file()
    }
    for pattern in patterns:
        if found := sorted(file for path, file in there.items() if fnmatchcase(path, pattern)):
            return found
    raise SampleError(
        f"{folder}: no file like {' or '.join(patterns)}; see `lfpc data fetch-instructions NAME`"
    )


def read_rows(file: Path) -> Iterator[TableRow | SampleError]:
    """Rows of a `.tsv`, `.csv`, `.parquet`, `.jsonl` or `.json` file (a list of objects), in their
    order; rows count from 1.

    Also of a folder written by Hugging Face's `save_to_disk`. Memory holds a row of a TSV or JSONL
    file (a cell needs about seven times its length), a page of a parquet file, the whole of a JSON
    file.

    Raises:
        SampleError: no such file, or another ending.
    """
    if is_saved_dataset(file):
        return _read_saved(file)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise SampleError(f"{file}: unknown ending; files end in {', '.join(_READERS)}")
    if not file.is_file():
        raise SampleError(f"{file}: no such file")
    return reader(file)


def _read_table(file: Path) -> Iterator[TableRow | SampleError]:
    # Not pyarrow's reader: it keeps some twenty blocks in flight, each of which must be larger than
    # the largest row.
    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        rows = csv.reader(lines, delimiter="," if file.suffix.lower() == ".csv" else "\t")
        names: list[str] | None = None
        number = -1
        while True:
            number += 1
            where = f"{file}: row {number}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield SampleError(f"{where}: {error}")
                continue
            if names is None:
                names = row
            elif len(row) != len(names):
                if row:
                    yield SampleError(
                        f"{where}: {len(row)} cells, but the first line names {len(names)} columns"
                    )
            else:
                yield TableRow(file, number, dict(zip(names, row, strict=True)))


def _read_parquet(file: Path) -> Iterator[TableRow | SampleError]:
    number = 0
    try:
        with pq.ParquetFile(
            file, buffer_size=1 << 20, pre_buffer=False
        ) as table:  # with pre_buffer everything read would stay in memory
            for batch in table.iter_batches(batch_size=8):
                for i in range(batch.num_rows):
                    number += 1
                    values = {
                        name: column[i].as_py()
                        for name, column in zip(batch.schema.names, batch.columns, strict=True)
                    }
                    yield TableRow(file, number, values)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield SampleError(f"{file}: not readable after row {number} ({error})")


def _read_jsonl(file: Path) -> Iterator[TableRow | SampleError]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _json_row(file, number, lambda line=line: json.loads(line))


def _read_json(file: Path) -> Iterator[TableRow | SampleError]:
    try:
        rows = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        yield SampleError(f"{file}: not readable as JSON ({error})")
        return
    if not isinstance(rows, list):
        rows = [rows]
    for number, row in enumerate(rows, 1):
        yield _json_row(file, number, lambda row=row: row)


def _json_row(file: Path, number: int, load: Callable[[], Any]) -> TableRow | SampleError:
    where = f"{file}: row {number}"
    try:
        row = load()
    except (ValueError, RecursionError) as error:
        return SampleError(f"{where}: not a line of JSON ({error})")
    return (
        TableRow(file, number, row)
        if isinstance(row, dict)
        else SampleError(f"{where}: a row is a JSON object, got {type(row).__name__}")
    )


def is_saved_dataset(folder: Path) -> bool:
    """Whether `folder` is a data set written by Hugging Face's `save_to_disk`, of one or several
    splits.
    """
    return any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def _read_saved(folder: Path) -> Iterator[TableRow | SampleError]:
    """Rows of a data set saved by Hugging Face `datasets`, split by split; its files are
    memory-mapped.
    """
    try:
        from datasets import DatasetDict, Image, load_from_disk
    except ImportError as error:
        raise SampleError(
            f"{folder}: a Hugging Face data set needs the package `datasets`: pip install "
            f"'lfpc[data]'"
        ) from error
    try:
        saved = load_from_disk(str(folder))
        splits = dict(saved) if isinstance(saved, DatasetDict) else {"": saved}
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise SampleError(f"{folder}: not readable as a Hugging Face data set ({error})") from error
    for split, rows in splits.items():
        for name, feature in rows.features.items():
            if isinstance(feature, Image):
                rows = rows.cast_column(
                    name, Image(decode=False)
                )  # bytes or path, as they were published
        for number, row in enumerate(rows, 1):
            yield TableRow(folder / str(split), number, dict(row))


_READERS: dict[str, Callable[[Path], Iterator[TableRow | SampleError]]] = {
    ".tsv": _read_table,
    ".csv": _read_table,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
}
