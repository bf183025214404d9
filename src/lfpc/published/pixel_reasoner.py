"""Pixel Reasoner's reinforcement learning set: a parquet file with picture names, and the pictures
in an archive to be unpacked.
"""

from pathlib import Path

from lfpc.published.base import (
    Found,
    Places,
    one_picture,
    pending_rows,
    plain_question,
    with_options,
)
from lfpc.published.files import TableRow
from lfpc.published.pictures import PictureStore
from lfpc.published.rejections import Rejected, RejectReason
from lfpc.published.rows import files_like, need
from lfpc.samples import Sample

VIDEO_ENDINGS = (".mp4", ".avi", ".mkv", ".mov", ".webm")


def read_pixel_reasoner(src: Path, places: Places) -> Found:
    """Samples of every parquet (or JSON) file below `src`; rows about videos are rejected."""
    yield from pending_rows(files_like(src, "*.parquet", "*.jsonl", "*.json"), places, _sample)


def _sample(record: TableRow, store: PictureStore) -> Sample:
    row = record.values
    cells = need(row, "image", "images")
    names = [
        str(cell)
        for cell in (cells if isinstance(cells, list) else [cells])
        if isinstance(cell, str)
    ]
    if row.get("is_video") in (True, 1, "True", "true") or any(
        name.lower().endswith(VIDEO_ENDINGS) for name in names
    ):
        raise Rejected(RejectReason.VIDEO, "a video; only pictures are samples")
    question, options, answer = with_options(
        plain_question(str(need(row, "question"))), str(need(row, "answer")).strip()
    )
    return Sample(
        id=str(need(row, "qid")),
        image=one_picture(cells, store),
        question=question,
        answer=answer,
        options=options,
        source="pixel-reasoner",
    )
