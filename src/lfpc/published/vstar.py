"""V* Bench (arXiv 2312.14135): small things in large photographs, 115 questions about attributes,
76 about positions.

Published as a folder per category with a JSON file beside each picture, and as
`test_questions.jsonl` in the same folder. The JSON files put the right option first, always: their
options are shuffled. The list has an order of its own, which is kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfpc.errors import MissingPicture, SampleError
from lfpc.published.files import TableRow, read_records
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.rows import (
    LETTERS,
    Found,
    files_like,
    lettered,
    need,
    sample_of,
    shuffled,
    some_options,
    split_options,
)
from lfpc.samples import Sample

CATEGORIES = ("direct_attributes", "relative_position")
"""Other folders of the download (OCR, GPT4V-hard) are no part of the benchmark."""
LIST = "test_questions.jsonl"
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def read_vstar(folder: Path, work: Path, seed: int) -> Found:
    """Samples of either layout. Ids are "category/file name" in both; two targets are two entries
    of `boxes`.
    """
    if (folder / LIST).is_file() or folder.name == LIST:
        yield from _read_list(folder if folder.is_file() else folder / LIST, work, seed)
        return
    for category in CATEGORIES:
        for file in files_like(folder, f"{category}/*.json"):
            for record in read_records(file):
                if isinstance(record, SampleError):
                    yield record
                else:
                    yield sample_of(
                        record,
                        PictureStore(work),
                        lambda row, _, file=file: _from_file(row, file, seed),
                    )


def _from_file(row: Mapping[str, Any], file: Path, seed: int) -> Sample:
    picture = next(
        (file.with_suffix(ending) for ending in _ENDINGS if file.with_suffix(ending).is_file()),
        None,
    )
    if picture is None:
        raise MissingPicture(f"no picture {file.stem}.jpg beside it")
    name = f"{file.parent.name}/{file.stem}"
    options, answer, order = shuffled(some_options(need(row, "options")), 0, seed=seed, key=name)
    return Sample(
        id=name,
        image=picture,
        question=str(need(row, "question")),
        answer=answer,
        options=options,
        boxes=pixel_boxes(row.get("bbox"), picture, form="xywh"),
        category=file.parent.name,
        source="vstar",
        meta={"order": order, "seed": seed, "targets": row.get("target_object", [])},
    )


def _read_list(file: Path, work: Path, seed: int) -> Found:
    records = list(read_records(file))
    labels = {str(record.values.get("label")) for record in records if isinstance(record, TableRow)}
    store = PictureStore(work / "pictures", roots=(file.parent,))

    def make(row: Mapping[str, Any], store: PictureStore) -> Sample:
        picture = store.file_of(need(row, "image"))
        question, options = split_options(str(need(row, "text", "question")))
        options = some_options(options)
        letter = lettered(need(row, "label"), options)
        category = str(need(row, "category"))
        name = f"{category}/{picture.stem}"
        meta = {"question_id": row.get("question_id")}
        if (
            len(labels) == 1 and len(records) > 1
        ):  # one letter is always right: the order gives the answer away
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

    for record in records:
        if isinstance(record, SampleError):
            yield record
        elif record.values.get("category", CATEGORIES[0]) in CATEGORIES:
            yield sample_of(record, store, make)


def _boxes_beside(picture: Path) -> tuple[Any, ...]:
    """Boxes of the JSON file beside a picture, if there is one."""
    beside = picture.with_suffix(".json")
    for record in read_records(beside) if beside.is_file() else ():
        if isinstance(record, TableRow):
            return pixel_boxes(record.values.get("bbox"), picture, form="xywh")
    return ()
