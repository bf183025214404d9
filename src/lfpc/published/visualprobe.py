"""VisualProbe (Mini-o3), training and test parts, and Mini-o3's own training files: JSON lists
beside their pictures.
"""

import re
from pathlib import Path

from lfpc.published.base import (
    Found,
    Places,
    kept_fields,
    one_picture,
    pending_rows,
    plain_question,
)
from lfpc.published.files import TableRow
from lfpc.published.pictures import PictureStore
from lfpc.published.rows import files_like, need
from lfpc.samples import Sample

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def read_visualprobe(src: Path, places: Places) -> Found:
    """Samples of every JSON file below `src`. Answers are free text; the category is the folder of
    a file ("hard" of VisualProbe_Hard).
    """
    for file in files_like(src, "*.json", "*.jsonl", "*.parquet"):
        part = file.parent.name.lower().removeprefix("visualprobe_")
        yield from pending_rows(
            [file], places, lambda record, store, part=part: _sample(record, store, part)
        )


def _sample(record: TableRow, store: PictureStore, part: str) -> Sample:
    row = record.values
    sample = Sample(
        id=f"{part}/{row.get('doc_id', f'row-{record.number}')}",
        image=one_picture(need(row, "images", "image"), store),
        question=plain_question(str(need(row, "problem"))),
        answer=unwrapped(str(need(row, "solution"))),
        category=part,
        source=str(row.get("data_source") or "visualprobe"),
    )
    return kept_fields(row, sample)


def unwrapped(solution: str) -> str:
    """A solution without the tags around it."""
    wrapped = _ANSWER.search(solution)
    return (wrapped.group(1) if wrapped else solution).strip()
