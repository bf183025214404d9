"""MME-RealWorld-Lite (arXiv 2408.13257): multiple choice about real scenes; the last option is "not
in the picture".

Published as parquet or TSV with the picture in base64, and as a JSON list beside a folder of
pictures. It has no boxes.
"""

from collections.abc import Mapping
from typing import Any

from lfpc.metrics.summary import summarise
from lfpc.published.files import TableRow
from lfpc.published.options import column_options, lettered, some_options, split_options
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import need, reader
from lfpc.samples import Sample


def _sample(row: TableRow, store: PictureStore) -> Sample:
    """The sample of a row; the category is "Task/Subtask"."""
    values = row.values
    options = _options(values)
    category = values.get("category") or "/".join(
        str(values[name]) for name in ("Task", "Subtask") if values.get(name)
    )
    return Sample(
        id=str(need(values, "index", "Question_id")),
        image=store.file_of(need(values, "bytes", "image", "Image")),
        question=str(need(values, "question", "Text")).strip(),
        answer=lettered(need(values, "answer", "Ground truth"), options),
        options=options,
        category=str(category),
        source="mme-realworld-lite",
        meta={"subcategory": str(values.get("l2-category") or values.get("Category") or "")},
    )


def _options(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Options of the columns A to E, or of a list or text of "(A) ..." entries."""
    if options := column_options(row):
        return options
    listed = need(row, "multi-choice options", "options", "Answer choices")
    lines = listed if isinstance(listed, str) else "\n".join(map(str, listed))
    return some_options(split_options(lines)[1] or listed)


MME_REALWORLD_LITE = PublishedSet(
    name="mme-realworld-lite",
    fetch=hugging_face(
        "mme-realworld-lite",
        ["yifanzhang114/MME-RealWorld-lite-lmms-eval"],
        "The parquet files; or the unpacked data.zip of "
        "yifanzhang114/MME-RealWorld-Lite: a JSON list and the folder imgs.",
    ),
    read=reader(
        "*.parquet", "*.tsv", "*mme*.json", "*.json", make=_sample, beside=("", "imgs", "images")
    ),
    score=summarise,
)
