"""Any table of questions with columns named by the user: JSONL, JSON, CSV, TSV, parquet, or a saved
Hugging Face data set.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lfpc.errors import ConfigError, SampleError
from lfpc.published.cells import absent, plain_answer
from lfpc.published.files import TableRow, files_like, is_saved_dataset
from lfpc.published.options import lettered, some_options, with_options, without_listed
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.published_set import Found, PublishedSet, ReadOptions
from lfpc.published.reading import missing_column, one_picture, pending_rows, plain_question
from lfpc.samples import Sample

FIELDS = ("id", "image", "question", "answer", "options", "boxes", "category", "source")
"""Sample fields of columns; the default column of each has its name."""
_LIKE = ("*.parquet", "*.jsonl", "*.json", "*.tsv", "*.csv")


def read_table(src: Path, options: ReadOptions) -> Iterator[Found]:
    """Rows of the files below `src` of the first kind found.

    Raises:
        ConfigError: a column for an unknown sample field.
    """
    if unknown := sorted(set(options.columns) - set(FIELDS)):
        raise ConfigError(
            f"--map {unknown[0]}=...: a sample has no {unknown[0]!r}; it has {', '.join(FIELDS)}"
        )
    names = {name: options.columns.get(name, name) for name in FIELDS}
    files = [src] if is_saved_dataset(src) else files_like(src, *_LIKE)
    return pending_rows(files, options, partial(_sample, names=names))


def _sample(row: TableRow, store: PictureStore, names: Mapping[str, str]) -> Sample:
    cells = {name: _column(row.values, column) for name, column in names.items()}
    values = {name: value for name, value in cells.items() if not absent(value)}
    for name in ("image", "question", "answer"):
        if name not in values:
            raise missing_column(row.values, names[name])
    if "id" not in values and names["id"] in row.values and cells["id"] is None:
        raise SampleError(f"{names['id']!r} is null; leave the column out for ids by row")
    picture = one_picture(values["image"], store)
    text = plain_question(str(values["question"]))
    answer = plain_answer(values["answer"])
    if "options" in values:
        options = some_options(values["options"])
        question = without_listed(text, options)
        answer = lettered(answer, options)
    else:
        question, options, answer = with_options(text, answer)
    return Sample(
        id=str(values.get("id", row.name)),
        image=picture,
        question=question,
        answer=answer,
        options=options,
        boxes=pixel_boxes(values.get("boxes"), picture),
        category=str(values.get("category", "")),
        source=str(values.get("source", row.split)),
    )


def _column(row: Mapping[str, Any], column: str) -> Any:
    """A column, or with dots a field inside one ("extra_info.answer"); None if missing."""
    if column in row:
        return row[column]
    found: Any = row
    for part in column.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


TABLE = PublishedSet(
    name="table",
    fetch="Any folder DIR with JSONL, JSON, CSV, TSV or parquet files, or one that Hugging Face's "
    "`save_to_disk` wrote; `lfpc data import table DIR OUT --map FIELD=COLUMN` names its columns.",
    read=read_table,
)
