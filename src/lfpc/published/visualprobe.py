"""VisualProbe (Mini-o3, arXiv 2509.07969), open questions about small objects, and Mini-o3's
training files: JSON lists beside their pictures.

Answers are free text; use a judge where no rule matches.
"""

from lfpc.metrics.summary import summarise
from lfpc.published.files import TableRow
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import (
    answer_of,
    kept_fields,
    need,
    one_picture,
    plain_question,
    reader,
    text_of,
)
from lfpc.samples import Sample

_LISTS = ("*.json", "*.jsonl", "*.parquet")


def _sample(row: TableRow, store: PictureStore) -> Sample:
    """The sample of a row; the category is the folder of its list ("hard" for VisualProbe_Hard)."""
    values = row.values
    part = row.file.parent.name.lower().removeprefix("visualprobe_")
    sample = Sample(
        id=f"{part}/{text_of(values, 'doc_id', default=row.name)}",
        image=one_picture(need(values, "images", "image"), store),
        question=plain_question(str(need(values, "problem"))),
        answer=answer_of(values, "solution"),
        category=part,
        source=text_of(values, "data_source", default="visualprobe"),
    )
    return kept_fields(values, sample)


VISUALPROBE = PublishedSet(
    name="visualprobe",
    fetch=hugging_face(
        "visualprobe",
        ["Mini-o3/VisualProbe_Easy", "Mini-o3/VisualProbe_Medium", "Mini-o3/VisualProbe_Hard"],
        "Each part has a folder of its name (DIR/visualprobe/VisualProbe_Hard/val.json), which "
        "becomes the category.",
    ),
    # The test parts, else every list.
    read=reader("*val.json", "*test.json", *_LISTS, make=_sample),
    score=summarise,
)
MINI_O3 = PublishedSet(
    name="mini-o3",
    fetch=hugging_face("mini-o3", ["Mini-o3/VisualProbe_train"], "train.json beside its pictures."),
    read=reader(*_LISTS, make=_sample),
)
