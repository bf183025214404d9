"""ThinkLite-VL: parquet with problem, answer and the picture's bytes. Some of its pictures are
smaller than one visual token.
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
from lfpc.published.rows import files_like, need
from lfpc.samples import Sample


def read_thinklite(src: Path, places: Places) -> Found:
    """Samples of every parquet file below `src`."""
    yield from pending_rows(files_like(src, "*.parquet"), places, _sample)


def _sample(record: TableRow, store: PictureStore) -> Sample:
    row = record.values
    question, options, answer = with_options(
        plain_question(str(need(row, "problem"))), str(need(row, "answer", "ground_truth")).strip()
    )
    return Sample(
        id=str(row.get("id") or f"row-{record.number}"),
        image=one_picture(need(row, "image", "images"), store),
        question=question,
        answer=answer,
        options=options,
        category=str(row.get("category") or ""),
        source="thinklite-vl",
    )
