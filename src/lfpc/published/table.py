"""Any table of questions: JSONL, JSON, CSV, TSV, parquet, or a data set saved by Hugging Face, with
columns named by the user.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfpc.errors import ConfigError
from lfpc.published.base import (
    Found,
    Places,
    one_picture,
    pending_rows,
    plain_question,
    with_options,
)
from lfpc.published.files import TableRow, is_saved_dataset
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.rows import files_like, lettered, need, some_options
from lfpc.samples import Sample

FIELDS = ("id", "image", "question", "answer", "options", "boxes", "category", "source")
"""What columns can be mapped to; each is looked for under its own name where no other one is
given."""
_LIKE = ("*.parquet", "*.jsonl", "*.json", "*.tsv", "*.csv")


def read_generic(src: Path, places: Places) -> Found:
    """Samples of the files below `src` that are of the first kind there is.

    Raises:
        ConfigError: a column is mapped to something that a sample does not have.
    """
    if unknown := sorted(set(places.columns) - set(FIELDS)):
        raise ConfigError(
            f"--map {unknown[0]}=...: a sample has no {unknown[0]!r}; it has {', '.join(FIELDS)}"
        )
    names = {name: places.columns.get(name, name) for name in FIELDS}
    files = [src] if is_saved_dataset(src) else files_like(src, *_LIKE)
    yield from pending_rows(files, places, lambda record, store: _sample(record, store, names))


def _sample(record: TableRow, store: PictureStore, names: Mapping[str, str]) -> Sample:
    row = {name: _column(record.values, column) for name, column in names.items()}
    row = {name: value for name, value in row.items() if value not in (None, "")}
    picture = one_picture(_needed(row, names, "image"), store)
    text = plain_question(str(_needed(row, names, "question")))
    answer = str(_needed(row, names, "answer")).strip()
    if options := row.get("options"):
        options = some_options(list(options.values()) if isinstance(options, dict) else options)
        question = text
        answer = lettered(answer, options)
    else:
        question, options, answer = with_options(text, answer)
    return Sample(
        id=str(row.get("id", f"row-{record.number}")),
        image=picture,
        question=question,
        answer=answer,
        options=tuple(options),
        boxes=pixel_boxes(row.get("boxes"), picture),
        category=str(row.get("category", "")),
        source=str(row.get("source", "")),
    )


def _needed(row: Mapping[str, Any], names: Mapping[str, str], name: str) -> Any:
    return need({names[name]: row.get(name)}, names[name])


def _column(row: Mapping[str, Any], column: str) -> Any:
    """A column, or with dots a field inside one ("extra_info.answer"); None if it is not there."""
    if column in row:
        return row[column]
    found: Any = row
    for part in column.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
