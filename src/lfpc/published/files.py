"""Rows of the files that data sets are published in, one at a time: a row may be large, a file far
larger than memory.

Nothing here knows what a row means. A row that cannot be read is a SampleError among the others,
and the next row follows.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lfpc.errors import SampleError

LARGEST_CELL = 512 * 1024 * 1024
"""Characters of one TSV cell. More means that a quotation mark was never closed."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: its values by column name, and the words that name it in an error ("file.tsv: row
    3").
    """

    where: str
    values: Mapping[str, Any]
    number: int = 0
    """Its place in the file, from 1."""


def read_records(file: Path) -> Iterator[TableRow | SampleError]:
    """Rows of a `.tsv`, `.csv`, `.parquet`, `.jsonl` or `.json` file (a list of objects), in their
    order; rows count from 1.

    Also of a folder that Hugging Face's `save_to_disk` wrote. Memory holds a row of a TSV or JSONL
    file (a cell takes some seven times its length), a page of a parquet file, the whole of a JSON
    file.

    Raises:
        SampleError: no such file, or an ending that is not one of these.
    """
    if is_saved_dataset(file):
        return _read_saved(file)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise SampleError(f"{file}: files end in {', '.join(_READERS)}; this one does not")
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
                yield TableRow(where, dict(zip(names, row, strict=True)), number)


def _read_parquet(file: Path) -> Iterator[TableRow | SampleError]:
    number = 0
    try:
        with pq.ParquetFile(
            file, buffer_size=1 << 20, pre_buffer=False
        ) as table:  # pre-buffered, all that was read stays in memory
            for batch in table.iter_batches(batch_size=8):
                for i in range(batch.num_rows):
                    number += 1
                    values = {
                        name: column[i].as_py()
                        for name, column in zip(batch.schema.names, batch.columns, strict=True)
                    }
                    yield TableRow(f"{file}: row {number}", values, number)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield SampleError(f"{file}: not readable after row {number} ({error})")


def _read_jsonl(file: Path) -> Iterator[TableRow | SampleError]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _record(file, number, lambda line=line: json.loads(line))


def _read_json(file: Path) -> Iterator[TableRow | SampleError]:
    try:
        rows = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        yield SampleError(f"{file}: not readable as JSON ({error})")
        return
    if not isinstance(rows, list):
        rows = [rows]
    for number, row in enumerate(rows, 1):
        yield _record(file, number, lambda row=row: row)


def _record(file: Path, number: int, load: Callable[[], Any]) -> TableRow | SampleError:
    where = f"{file}: row {number}"
    try:
        row = load()
    except (ValueError, RecursionError) as error:
        return SampleError(f"{where}: not a line of JSON ({error})")
    return (
        TableRow(where, row, number)
        if isinstance(row, dict)
        else SampleError(f"{where}: a row is a JSON object, got {type(row).__name__}")
    )


def is_saved_dataset(folder: Path) -> bool:
    """Whether `folder` is a data set that Hugging Face's `save_to_disk` wrote, of one split or of
    several.
    """
    return any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def _read_saved(folder: Path) -> Iterator[TableRow | SampleError]:
    """Rows of a data set saved by Hugging Face `datasets`, one split after the other; its files are
    mapped, not loaded.
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
        name = f"{folder / str(split)}" if split else f"{folder}"
        for number, row in enumerate(rows, 1):
            yield TableRow(f"{name}: row {number}", dict(row), number)


_READERS: dict[str, Callable[[Path], Iterator[TableRow | SampleError]]] = {
    ".tsv": _read_table,
    ".csv": _read_table,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
}
