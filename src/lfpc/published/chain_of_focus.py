"""Chain-of-Focus's reinforcement learning set: JSON with picture names, which are paths on the
authors' disk.
"""

from lfpc.published.files import TableRow
from lfpc.published.options import with_options
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import answer_of, need, one_picture, plain_question, reader, text_of
from lfpc.samples import Sample


def _sample(row: TableRow, store: PictureStore) -> Sample:
    """The sample of a row; the category is the data set of its picture."""
    values = row.values
    text = plain_question(str(need(values, "question")))
    answer = answer_of(values, "groundtruth", "ground_truth", "answer")
    question, options, answer = with_options(text, answer)
    return Sample(
        id=text_of(values, "id", default=row.name),
        image=one_picture(need(values, "image_name", "image"), store),
        question=question,
        answer=answer,
        options=options,
        category=text_of(values, "data_source"),
        source="chain-of-focus",
    )


CHAIN_OF_FOCUS = PublishedSet(
    name="chain-of-focus",
    fetch=hugging_face(
        "chain-of-focus",
        ["xintongzhang/CoF-RL-Data"],
        "The JSON file, and images.zip unpacked. Picture names are paths on the authors' disk: "
        "import with --strip /their/path/ --root PICTURES.",
        unpack="images.zip",
    ),
    read=reader("*.jsonl", "*.json", "*.parquet", make=_sample),
)
