"""V* Bench (arXiv 2312.14135): small objects in large photographs, 115 questions about attributes,
76 about positions.

Published as a folder per category with a JSON file beside each picture, as `test_questions.jsonl`
in the same folder, and as one table with the pictures inside (parquet with `text` and `label`, or
TSV with columns A to D), which has no boxes. The JSON files always have the right option first, so
their options are shuffled. A list or table keeps its own order.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lfpc.errors import MissingPicture, SampleError
from lfpc.metrics.summary import summarise
from lfpc.picture_files import ENDINGS
from lfpc.published.files import TableRow, files_like, read_rows
from lfpc.published.options import (
    LETTERS,
    column_options,
    lettered,
    shuffled,
    some_options,
    split_options,
)
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.published_set import Found, PendingRow, PublishedSet, ReadOptions, hugging_face
from lfpc.published.reading import answer_of, need, pending_rows, text_of
from lfpc.samples import Sample

CATEGORIES = ("direct_attributes", "relative_position")
"""Folders of the benchmark; the download has others (OCR, GPT4V-hard)."""
LIST = "test_questions.jsonl"
_TABLES = (
    "*vstar*.tsv",
    "*vstar*.parquet",
    "*.tsv",
    "*.parquet",
    "*.jsonl",
    *(f"{category}/*.json" for category in CATEGORIES),
)
_LABEL = ("label", "answer")


def read_vstar(src: Path, options: ReadOptions) -> Iterator[Found]:
    """Rows of any layout, with ids "category/file name", or "category/number" for pictures without
    a name; `boxes` has an entry per target.
    """
    seed = options.option_seed
    if (src / LIST).is_file():
        yield from _read_list([src / LIST], options)
        return
    if src.is_file() or not any((src / category).is_dir() for category in CATEGORIES):
        yield from _read_list(files_like(src, *_TABLES), options)
        return
    for category in CATEGORIES:
        files = files_like(src, f"{category}/*.json")
        yield from pending_rows(files, options, partial(_from_file, seed=seed))


def _from_file(row: TableRow, store: PictureStore, seed: int) -> Sample:
    values = row.values
    file = row.file
    picture = next(
        (file.with_suffix(ending) for ending in ENDINGS if file.with_suffix(ending).is_file()),
        None,
    )
    if picture is None:
        raise MissingPicture(f"no picture {file.stem}.jpg beside it")
    name = f"{file.parent.name}/{file.stem}"
    options, answer, order = shuffled(some_options(need(values, "options")), 0, seed=seed, key=name)
    return Sample(
        id=name,
        image=picture,
        question=str(need(values, "question")),
        answer=answer,
        options=options,
        boxes=pixel_boxes(values.get("bbox"), picture, form="xywh"),
        category=file.parent.name,
        source="vstar",
        meta={"order": order, "seed": seed, "targets": values.get("target_object", [])},
    )


def _read_list(files: Sequence[Path], options: ReadOptions) -> Iterator[Found]:
    """Rows of the list, or of tables. They are read twice: pictures may be larger than memory."""
    rows = 0
    labels = set[str]()
    for row in _rows(files):
        if isinstance(row, TableRow):
            rows += 1
            labels.add(text_of(row.values, *_LABEL))
    # if one letter is always right, the order gives the answer away
    seed = options.option_seed if len(labels) == 1 and rows > 1 else None
    for row in _rows(files):
        if isinstance(row, SampleError):
            yield row
        elif text_of(row.values, "category", default=CATEGORIES[0]) in CATEGORIES:
            store = options.store(row.file.parent)
            yield PendingRow(row, partial(_from_list, row, store, seed))


def _rows(files: Sequence[Path]) -> Iterator[TableRow | SampleError]:
    for file in files:
        yield from read_rows(file)


def _from_list(row: TableRow, store: PictureStore, seed: int | None) -> Sample:
    """The sample of a row, with options shuffled by `seed` if given."""
    values = row.values
    cell = need(values, "image")
    picture = store.file_of(cell)
    text = str(need(values, "text", "question"))
    options = some_options(column_options(values) or split_options(text)[1])
    letter = lettered(answer_of(values, *_LABEL), options)
    category = str(need(values, "category"))
    number = text_of(values, "question_id", "index", default=row.name)
    name = f"{category}/{_picture_name(cell) or number}"
    meta: dict[str, Any] = {"question_id": values.get("question_id", values.get("index"))}
    if seed is not None:
        options, letter, order = shuffled(options, LETTERS.index(letter), seed=seed, key=name)
        meta |= {"order": order, "seed": seed}
    return Sample(
        id=name,
        image=picture,
        question=split_options(text)[0],
        answer=letter,
        options=options,
        boxes=_boxes_beside(picture),
        category=category,
        source="vstar",
        meta=meta,
    )


def _picture_name(cell: Any) -> str:
    """The published name of a picture without its ending; "" for bytes and base64."""
    name = cell.get("path") if isinstance(cell, Mapping) else cell
    path = Path(name) if isinstance(name, str) else Path()
    return path.stem if path.suffix.lower() in ENDINGS else ""


def _boxes_beside(picture: Path) -> tuple[Any, ...]:
    """Boxes of the JSON file beside a picture; empty without the file."""
    beside = picture.with_suffix(".json")
    for row in read_rows(beside) if beside.is_file() else ():
        if isinstance(row, TableRow):
            return pixel_boxes(row.values.get("bbox"), picture, form="xywh")
    return ()


VSTAR = PublishedSet(
    name="vstar",
    fetch=hugging_face(
        "vstar",
        ["craigwu/vstar_bench"],
        "Folders direct_attributes and relative_position, with or without test_questions.jsonl. "
        "The parquet file of lmms-lab/vstar-bench or VStarBench.tsv also will do, without boxes.",
    ),
    read=read_vstar,
    score=summarise,
    questions=191,
)
