"""Pixel Reasoner's reinforcement learning set: a parquet file with picture names, and an archive of
pictures to unpack. Rows about videos are rejected. An answer is the first of a list, as in the
authors' preparation of the set.
"""

from lfpc.published.cells import plain_answer
from lfpc.published.files import TableRow
from lfpc.published.options import with_options
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import need, one_picture, plain_question, reader
from lfpc.published.rejections import Rejected, RejectReason
from lfpc.samples import Sample

VIDEO_ENDINGS = (".mp4", ".avi", ".mkv", ".mov", ".webm")


def _sample(row: TableRow, store: PictureStore) -> Sample:
    values = row.values
    cells = need(values, "image", "images")
    names = [
        str(cell)
        for cell in (cells if isinstance(cells, list) else [cells])
        if isinstance(cell, str)
    ]
    if values.get("is_video") in (True, 1, "True", "true") or any(
        name.lower().endswith(VIDEO_ENDINGS) for name in names
    ):
        raise Rejected(RejectReason.VIDEO, "a video; only pictures are samples")
    answers = need(values, "answer")
    question, options, answer = with_options(
        plain_question(str(need(values, "question"))),
        plain_answer(answers[0] if isinstance(answers, list) else answers),
    )
    return Sample(
        id=str(need(values, "qid")),
        image=one_picture(cells, store),
        question=question,
        answer=answer,
        options=options,
        source="pixel-reasoner",
    )


PIXEL_REASONER = PublishedSet(
    name="pixel-reasoner",
    fetch=hugging_face(
        "pixel-reasoner",
        ["TIGER-Lab/PixelReasoner-RL-Data"],
        "The parquet file, and images.zip unpacked beside it; videos are left out.",
        exclude="videos.zip",
        unpack="images.zip",
        size="2.3 GB, without 8.31 GB of videos",
    ),
    read=reader("*.parquet", "*.jsonl", "*.json", make=_sample),
)
