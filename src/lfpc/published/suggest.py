"""Columns for an import that read nothing: a guess by their names and values, tried on the rows."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from lfpc.errors import LfpcError, SampleError
from lfpc.picture_files import ENDINGS
from lfpc.published.cells import absent
from lfpc.published.config import ImportConfig
from lfpc.published.files import TableRow
from lfpc.published.published_set import PendingRow, ReadOptions
from lfpc.published.reading import sample_of
from lfpc.published.table import read_table
from lfpc.samples import Sample

TRIED = 40
"""Rows on which a guess is tried."""
_NAMES = {
    "id": "id qid question_id sample_id index uid uuid idx key",
    "image": "image images img imgs image_path img_path image_file image_name picture pictures "
    "photo path file file_name filename file_path url",
    "question": "question problem query prompt instruction text input conversation q",
    "answer": "answer ground_truth solution answers gt gt_answer label target correct_answer "
    "correct response output reference a",
    "options": "options choices multi_choice_options multiple_choices candidates",
}
"""Usual column names of each field, the likeliest first."""
_PICTURES = ("data:image", "/9j/", "iVBOR", "R0lGOD", "UklGR")
"""Beginnings of pictures in base64."""


def command(config: ImportConfig, out: Path, options: ReadOptions) -> str | None:
    """The command line that reads at least half of the first rows as a table; None: no guess does.

    Args:
        config: the import that read nothing.
        out: its folder.
        options: its options for readers.
    """
    columns = _tried(config, options)
    if columns is None:
        return None
    words = ["lfpc", "data", "import", "table", str(config.src), str(out)]
    for name, values in (("--root", config.roots), ("--strip", config.strip)):
        words += [name, *map(str, values)] if values else []
    words += ["--min-side", str(config.min_side)] if config.min_side != 28 else []
    words += ["--link"] if config.link else []
    words += ["--map", *(f"{field}={column}" for field, column in columns.items())]
    return shlex.join(words)


def _tried(config: ImportConfig, options: ReadOptions) -> dict[str, str] | None:
    rows = list(islice(_rows(config.src, options), TRIED))
    guess = _guess([row.values for row in rows], options.columns)
    optional = [name for name in ("options", "id") if name in guess]
    for left_out in ((), *([name] for name in optional), optional):
        columns = {name: column for name, column in guess.items() if name not in left_out}
        changed = replace(options, columns=columns)
        try:
            found = list(islice(read_table(config.src, changed), TRIED))
        except LfpcError:
            return None
        made = sum(isinstance(sample_of(one), Sample) for one in found)
        if made and 2 * made >= len(found):
            return {name: column for name, column in columns.items() if name != column} or None
    return None


def _rows(src: Path, options: ReadOptions) -> Iterator[TableRow]:
    try:
        yield from (
            found.row for found in read_table(src, options) if isinstance(found, PendingRow)
        )
    except SampleError:  # no table at all
        return


def _guess(rows: Sequence[Mapping[str, Any]], given: Mapping[str, str]) -> dict[str, str]:
    """Field -> column: the given one where the rows have it, otherwise by name; the picture also
    by its values.
    """
    columns: dict[str, Any] = {}
    for row in rows:
        for column, value in _flat(row):
            if not absent(value):
                columns.setdefault(column, value)
    guess: dict[str, str] = {}
    for field, names in _NAMES.items():
        if given.get(field) in columns:
            guess[field] = given[field]
            continue
        ranks = {name.replace("_", ""): rank for rank, name in enumerate(names.split())}
        known = {
            column: (ranks[plain], column.count("."))
            for column in columns
            if (plain := _plain(column)) in ranks and column not in guess.values()
        }
        if known:
            guess[field] = min(known, key=lambda column: known[column])
    shown = [column for column, value in columns.items() if _is_picture(value)]
    if shown and guess.get("image") not in shown and given.get("image") not in columns:
        guess["image"] = shown[0]
    return guess


def _flat(row: Mapping[str, Any], front: str = "") -> Iterator[tuple[str, Any]]:
    """(column, value) of a row, with dots for fields inside a column."""
    for name, value in row.items():
        yield f"{front}{name}", value
        if isinstance(value, Mapping) and "bytes" not in value and front.count(".") < 3:
            yield from _flat(value, f"{front}{name}.")


def _plain(column: str) -> str:
    """The last part of a column's name in lower case, without separators."""
    last = column.rsplit(".", 1)[-1]
    return "".join(letter for letter in last.casefold() if letter.isalnum())


def _is_picture(value: Any) -> bool:
    match value:
        case bytes():
            return True
        case list():
            return len(value) == 1 and _is_picture(value[0])
        case Mapping():
            return "bytes" in value
        case str():
            return value.lower().endswith(ENDINGS) or value.startswith(_PICTURES)
        case _:
            return False
