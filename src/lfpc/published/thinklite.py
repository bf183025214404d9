"""ThinkLite-VL: parquet with problem, answer and the picture's bytes. Some of its pictures are
smaller than one visual token.
"""

from lfpc.published.files import TableRow
from lfpc.published.options import with_options
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import need, one_picture, plain_question, reader
from lfpc.samples import Sample


def _sample(row: TableRow, store: PictureStore) -> Sample:
    values = row.values
    question, options, answer = with_options(
        plain_question(str(need(values, "problem"))),
        str(need(values, "answer", "ground_truth")).strip(),
    )
    return Sample(
        id=str(values.get("id") or f"row-{row.number}"),
        image=one_picture(need(values, "image", "images"), store),
        question=question,
        answer=answer,
        options=options,
        category=str(values.get("category") or ""),
        source="thinklite-vl",
    )


THINKLITE_VL = PublishedSet(
    name="thinklite-vl",
    fetch=hugging_face(
        "thinklite-vl", ["russwang/ThinkLite-VL-hard-11k"], "The parquet files hold the pictures."
    ),
    read=reader("*.parquet", make=_sample),
)
