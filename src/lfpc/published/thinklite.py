"""ThinkLite-VL: parquet with problem, answer and the picture's bytes. Some of its pictures are
smaller than one visual token.
"""

from lfpc.published.files import TableRow
from lfpc.published.options import with_options
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import answer_of, need, one_picture, plain_question, reader, text_of
from lfpc.samples import Sample


def _sample(row: TableRow, store: PictureStore) -> Sample:
    values = row.values
    question, options, answer = with_options(
        plain_question(str(need(values, "problem"))),
        answer_of(values, "answer", "ground_truth"),
    )
    return Sample(
        id=text_of(values, "id", default=row.name),
        image=one_picture(need(values, "image", "images"), store),
        question=question,
        answer=answer,
        options=options,
        category=text_of(values, "category"),
        source="thinklite-vl",
    )


THINKLITE_VL = PublishedSet(
    name="thinklite-vl",
    fetch=hugging_face(
        "thinklite-vl", ["russwang/ThinkLite-VL-hard-11k"], "The parquet files hold the pictures."
    ),
    read=reader("*.parquet", make=_sample),
)
