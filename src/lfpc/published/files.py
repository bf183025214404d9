"""Rows of published files, one at a time: files may be far larger than memory.

The meaning of a row is decided elsewhere. An unreadable row is a SampleError among the others, and
the next row follows.
"""

import json
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

from lfpc.errors import SampleError
from lfpc.published.cells import without_nan
from lfpc.published.delimited import Records

_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""A line before the names of the columns that tells Excel the separator of cells."""
_ESCAPED = re.compile("[\udc80-\udcff]")
"""A byte that is not UTF-8, as Python's "surrogateescape" keeps it."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a file, with its values by column name; None for null and NaN."""

    file: Path
    number: int
    """Number of the row in the file, from 1."""
    values: Mapping[str, Any]
    split: str = ""
    """Name of the split that the row is in, of a saved data set with several."""

    @property
    def where(self) -> str:
        """Name of the row in errors, such as "file.tsv: row 3"."""
        return f"{self.file}: row {self.number}"

    @property
    def name(self) -> str:
        """Id of a row that has none, such as "row-3" or "train/row-3"."""
        return f"{self.split}/row-{self.number}" if self.split else f"row-{self.number}"


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
        f"{folder}: no file like {' or '.join(patterns)}; `lfpc data fetch-instructions` prints "
        f"which files belong there, for each benchmark by its name"
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
        from lfpc.published.arrow import read_saved

        return read_saved(file)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise SampleError(f"{file}: unknown ending; files end in {', '.join(_READERS)}")
    if not file.is_file():
        raise SampleError(f"{file}: no such file")
    return reader(file)


def _read_table(file: Path) -> Iterator[TableRow | SampleError]:
    # Not pyarrow's reader: it keeps some twenty blocks in flight, each of which must be larger than
    # the largest row.
    with file.open(encoding=_encoding(file), errors="surrogateescape", newline="") as text:
        first = text.readline()
        named = _SEPARATOR.fullmatch(first)
        lines = text if named or not first else chain([first], text)
        rows = Records(lines, named[1] if named else _delimiter(file, first))
        names = rows.first()
        if names is None:
            return
        if not _is_utf8(names):
            yield SampleError(
                f"{file}: the first line is not UTF-8; convert the file, as in "
                f"`iconv -f LATIN1 -t UTF-8`"
            )
            return
        names = [name.strip() for name in names]
        if twice := [name for name in names if name and names.count(name) > 1]:
            yield SampleError(f"{file}: two columns are called {twice[0]!r}; rename one")
            return
        for number, row in enumerate(rows.others(len(names)), 1):
            where = f"{file}: row {number}"
            if isinstance(row, SampleError):
                yield SampleError(f"{where}: {row}")
            elif not _is_utf8(row):
                yield SampleError(f"{where}: not UTF-8; convert the file")
            elif row:
                yield TableRow(file, number, dict(zip(names, map(_cell, row), strict=True)))


def _encoding(file: Path) -> str:
    """UTF-16 for a file that begins with its mark, as Excel writes it, or with a letter of two
    bytes; otherwise UTF-8.
    """
    with file.open("rb") as content:
        start = content.read(2)
    if start in (BOM_UTF16_LE, BOM_UTF16_BE):
        return "utf-16"
    if start[1:] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if start[:1] == b"\0" else "utf-8-sig"


def _delimiter(file: Path, first: str) -> str:
    """The separator of cells: that of the file's ending if the first line has one, otherwise the
    most frequent of the others. Excel writes semicolons where the comma is the decimal sign.
    """
    usual = "," if file.suffix.lower() == ".csv" else "\t"
    return usual if usual in first else max(usual, ";", "\t", ",", key=first.count)


def _cell(text: str) -> str | None:
    """A cell of a text table, None for the NaN of other programs."""
    return None if text.strip().casefold() == "nan" else text


def _is_utf8(row: Sequence[str]) -> bool:
    """Whether no byte of a row's file had to be escaped."""
    return not any(_ESCAPED.search(cell) for cell in row)


def _read_parquet(file: Path) -> Iterator[TableRow | SampleError]:
    from lfpc.published.arrow import read_parquet

    return read_parquet(file)


def _read_json(file: Path) -> Iterator[TableRow | SampleError]:
    """Rows of a JSON file by its content, whatever its ending: a list of objects, objects line by
    line, or one object, also around the list.
    """
    if _holds_json_lines(file):
        yield from _read_json_lines(file)
        return
    try:
        rows = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        if file.suffix.lower() == ".jsonl":
            yield from _read_json_lines(file)
        else:
            yield SampleError(f"{file}: not readable as JSON ({error})")
        return
    if isinstance(rows, dict) and len(rows) == 1:
        (inner,) = rows.values()
        rows = inner if isinstance(inner, list) and inner and _are_objects(inner) else rows
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], 1):
        yield _json_row(file, number, lambda row=row: row)


def _read_json_lines(file: Path) -> Iterator[TableRow | SampleError]:
    encoding = _encoding(file)
    narrow = encoding == "utf-8-sig"  # whose lines are read as bytes: one that is not UTF-8 is lost
    with file.open("rb") if narrow else file.open(encoding=encoding) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _json_row(file, number, lambda line=line: json.loads(line))


def _holds_json_lines(file: Path) -> bool:
    """Whether the first line of a file that is not empty is a whole JSON object, and another line
    follows or the file is called `.jsonl`.
    """
    with file.open(encoding=_encoding(file), errors="surrogateescape") as lines:
        there = (line for line in lines if line.strip())
        try:
            first = json.loads(next(there, ""))
        except (ValueError, RecursionError):
            return False
        return isinstance(first, dict) and (
            file.suffix.lower() == ".jsonl" or next(there, None) is not None
        )


def _are_objects(rows: Sequence[Any]) -> bool:
    return all(isinstance(row, dict) for row in rows)


def _json_row(file: Path, number: int, load: Callable[[], Any]) -> TableRow | SampleError:
    where = f"{file}: row {number}"
    try:
        row = without_nan(load())
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
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("dataset_info.json", "state.json")
    )


_READERS: dict[str, Callable[[Path], Iterator[TableRow | SampleError]]] = {
    ".tsv": _read_table,
    ".csv": _read_table,
    ".parquet": _read_parquet,
    ".jsonl": _read_json,
    ".json": _read_json,
}
