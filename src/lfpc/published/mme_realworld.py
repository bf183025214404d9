"""MME-RealWorld-Lite (arXiv 2408.13257): multiple choice about real scenes; the last option is "not
in the picture".

Published as parquet or TSV with the picture in base64, and as a JSON list beside a folder of
pictures, in which distinct questions share an id. It has no boxes.
"""

from lfpc.metrics.summary import summarise
from lfpc.published.files import TableRow
from lfpc.published.options import column_options, lettered, some_options
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import answer_of, need, reader, text_of
from lfpc.samples import Sample


def _sample(row: TableRow, store: PictureStore) -> Sample:
    """The sample of a row; the category is "Task/Subtask"."""
    values = row.values
    options = column_options(values) or some_options(
        need(values, "multi-choice options", "options", "Answer choices")
    )
    tasks = [text_of(values, name) for name in ("Task", "Subtask")]
    return Sample(
        id=str(need(values, "index", "Question_id")),
        image=store.file_of(need(values, "bytes", "image", "Image")),
        question=str(need(values, "question", "Text")).strip(),
        answer=lettered(answer_of(values, "answer", "Ground truth"), options),
        options=options,
        category=text_of(values, "category") or "/".join(filter(None, tasks)),
        source="mme-realworld-lite",
        meta={"subcategory": text_of(values, "l2-category", "Category")},
    )


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
