"""TreeBench (arXiv 2507.07999): 405 multiple choice questions, each with the boxes of the things it
is about.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfpc.boxes import Box
from lfpc.metrics.episodes import Row, target_iou
from lfpc.metrics.scoring import mean_figures, score_rows
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


def score_treebench(rows: Sequence[Row]) -> dict[str, Any]:
    """`score_rows` and "iou": how well the boxes that were asked for hit the targets, 0 for a
    question without a crop.

        iou = mean over questions of mean over targets of max over asked boxes of IoU

    Source: TreeBench, whose models write boxes into their reasoning; here a box is a call of the
    crop tool.
    """
    values = [target_iou(asked_boxes(row), _targets(row)) or 0.0 for row in rows]
    return score_rows(rows) | mean_figures("iou", values, [row["sample"] for row in rows])


def asked_boxes(row: Row) -> list[Box]:
    """The boxes of every crop call of a row, in order."""
    actions = [turn.get("action", {}) for turn in row.get("turns", ())]
    return [Box(*action["box"]) for action in actions if action.get("kind") == "crop"]


def _targets(row: Row) -> list[list[Box]]:
    return [[Box(*corners) for corners in nested] for nested in row.get("boxes", ())]
