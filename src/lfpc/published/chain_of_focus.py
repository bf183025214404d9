"""Chain-of-Focus's reinforcement learning set: JSON with picture names, which are paths on the
authors' disk.
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


def read_chain_of_focus(src: Path, places: Places) -> Found:
    """Samples of every JSON file below `src`; the category is the data set that a picture came
    from.
    """
    yield from pending_rows(files_like(src, "*.jsonl", "*.json", "*.parquet"), places, _sample)


def _sample(record: TableRow, store: PictureStore) -> Sample:
    row = record.values
    text = plain_question(str(need(row, "question")))
    answer = str(need(row, "groundtruth", "ground_truth", "answer")).strip()
    question, options, answer = with_options(text, answer)
    return Sample(
        id=str(row.get("id") or f"row-{record.number}"),
        image=one_picture(need(row, "image_name", "image"), store),
        question=question,
        answer=answer,
        options=options,
        category=str(row.get("data_source") or ""),
        source="chain-of-focus",
    )
