"""MME-RealWorld-Lite (arXiv 2408.13257): multiple choice about real scenes; the last option says
that it is not in the picture.

Published as parquet or TSV with the picture in base64, and as a JSON list beside a folder of
pictures. It has no boxes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfpc.published.pictures import PictureStore
from lfpc.published.rows import (
    Found,
    column_options,
    files_like,
    lettered,
    need,
    samples_of,
    some_options,
    split_options,
)
from lfpc.samples import Sample


def read_mme_realworld(folder: Path, work: Path, seed: int) -> Found:
    """Samples of the parquet, TSV or JSON files below `folder`; the category is "Task/Subtask"."""
    for file in files_like(folder, "*.parquet", "*.tsv", "*mme*.json", "*.json"):
        roots = (file.parent, file.parent / "imgs", file.parent / "images", folder)
        yield from samples_of([file], PictureStore(work / "pictures", roots=roots), _sample)


def _sample(row: Mapping[str, Any], store: PictureStore) -> Sample:
    options = _options(row)
    category = row.get("category") or "/".join(
        str(row[name]) for name in ("Task", "Subtask") if row.get(name)
    )
    return Sample(
        id=str(need(row, "index", "Question_id")),
        image=store.file_of(need(row, "bytes", "image", "Image")),
        question=str(need(row, "question", "Text")).strip(),
        answer=lettered(need(row, "answer", "Ground truth"), options),
        options=options,
        category=str(category),
        source="mme-realworld-lite",
        meta={"subcategory": str(row.get("l2-category") or row.get("Category") or "")},
    )


def _options(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Options of the columns A to E, or of a list or text of "(A) ..." entries."""
    if options := column_options(row):
        return options
    listed = need(row, "multi-choice options", "options", "Answer choices")
    lines = listed if isinstance(listed, str) else "\n".join(map(str, listed))
    return some_options(split_options(lines)[1] or listed)
