"""TreeBench (arXiv 2507.07999): 405 multiple choice questions, each with the boxes of the things it
is about.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfpc.boxes import target_iou
from lfpc.metrics.summary import Records, Summary, mean_with_error, summarise
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.rows import (
    Found,
    column_options,
    files_like,
    lettered,
    need,
    samples_of,
    some_options,
    split_options,
)
from lfpc.samples import Sample


def read_treebench(folder: Path, work: Path, seed: int) -> Found:
    """Samples of `TreeBench.tsv`; each instance is a target of its own."""
    yield from samples_of(
        files_like(folder, "*treebench*.tsv", "*.tsv", "*.parquet"),
        PictureStore(work / "pictures"),
        _sample,
    )


def _sample(row: Mapping[str, Any], store: PictureStore) -> Sample:
    question, inline = split_options(str(need(row, "question")))
    options = some_options(
        column_options(row)
        or inline
        or split_options(str(row.get("multi-choice options") or ""))[1]
    )
    picture = store.file_of(need(row, "image"))
    return Sample(
        id=str(need(row, "index")),
        image=picture,
        question=question,
        answer=lettered(need(row, "answer"), options),
        options=options,
        boxes=pixel_boxes(need(row, "target_instances"), picture),
        category=str(need(row, "category")),
        source="treebench",
    )


def score_treebench(records: Records) -> Summary:
    """`summarise`, and "miou": how well the boxes that were asked for hit the targets, 0 for a
    question without a crop.

        miou = mean over questions of mean over targets of max over asked boxes of IoU

    Source: TreeBench, whose models write boxes into their reasoning; here a box is a call of the
    crop tool.
    """
    values = [target_iou(record.boxes, record.sample.boxes) or 0.0 for record in records]
    return summarise(records) | {
        "figures": mean_with_error("miou", values, [record.sample.id for record in records])
    }
