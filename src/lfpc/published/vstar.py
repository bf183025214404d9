"""V* Bench (arXiv 2312.14135): small objects in large photographs, 115 questions about attributes,
76 about positions.

Published as a folder per category with a JSON file beside each picture, and as
`test_questions.jsonl` in the same folder. The JSON files always have the right option first, so
their options are shuffled. The list keeps its own order.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lfpc.errors import MissingPicture, SampleError
from lfpc.metrics.summary import summarise
from lfpc.published.files import TableRow, files_like, read_rows
from lfpc.published.options import LETTERS, lettered, shuffled, some_options, split_options
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.published_set import Found, PendingRow, PublishedSet, ReadOptions, hugging_face
from lfpc.published.reading import need, pending_rows
from lfpc.samples import Sample

CATEGORIES = ("direct_attributes", "relative_position")
"""Folders of the benchmark; the download has others (OCR, GPT4V-hard)."""
LIST = "test_questions.jsonl"
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def read_vstar(src: Path, options: ReadOptions) -> Iterator[Found]:
    """Rows of either layout, with ids "category/file name"; `boxes` has an entry per target."""
    seed = options.option_seed
    if (src / LIST).is_file() or src.name == LIST:
        yield from _read_list(src if src.is_file() else src / LIST, options)
        return
    for category in CATEGORIES:
        files = files_like(src, f"{category}/*.json")
        yield from pending_rows(files, options, partial(_from_file, seed=seed))


def _from_file(row: TableRow, store: PictureStore, seed: int) -> Sample:
    values = row.values
    file = row.file
    picture = next(
        (file.with_suffix(ending) for ending in _ENDINGS if file.with_suffix(ending).is_file()),
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


def _read_list(file: Path, options: ReadOptions) -> Iterator[Found]:
    rows = list(read_rows(file))
    labels = {str(row.values.get("label")) for row in rows if isinstance(row, TableRow)}
    # if one letter is always right, the order gives the answer away
    seed = options.option_seed if len(labels) == 1 and len(rows) > 1 else None
    store = options.store(file.parent)
    for row in rows:
        if isinstance(row, SampleError):
            yield row
        elif row.values.get("category", CATEGORIES[0]) in CATEGORIES:
            yield PendingRow(row, partial(_from_list, row, store, seed))


def _from_list(row: TableRow, store: PictureStore, seed: int | None) -> Sample:
    """The sample of a row, with options shuffled by `seed` if given."""
    values = row.values
    picture = store.file_of(need(values, "image"))
    question, options = split_options(str(need(values, "text", "question")))
    options = some_options(options)
    letter = lettered(need(values, "label"), options)
    category = str(need(values, "category"))
    name = f"{category}/{picture.stem}"
    meta = {"question_id": values.get("question_id")}
    if seed is not None:
        options, letter, order = shuffled(options, LETTERS.index(letter), seed=seed, key=name)
        meta |= {"order": order, "seed": seed}
    return Sample(
        id=name,
        image=picture,
        question=question,
        answer=letter,
        options=options,
        boxes=_boxes_beside(picture),
        category=category,
        source="vstar",
        meta=meta,
    )


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
        "Folders direct_attributes and relative_position, with or without test_questions.jsonl.",
    ),
    read=read_vstar,
    score=summarise,
    questions=191,
)
