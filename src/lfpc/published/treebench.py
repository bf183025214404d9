"""TreeBench (arXiv 2507.07999): 405 multiple choice questions, each with the boxes of the things it
is about.
"""

from collections.abc import Sequence
from typing import Any

from lfpc.boxes import Box
from lfpc.metrics.episodes import Row, target_iou
from lfpc.metrics.scoring import mean_figures, score_rows
from lfpc.published.files import TableRow
from lfpc.published.options import column_options, lettered, some_options, split_options
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import need, reader
from lfpc.samples import Sample


def _sample(row: TableRow, store: PictureStore) -> Sample:
    """Each instance is a target of its own."""
    values = row.values
    question, inline = split_options(str(need(values, "question")))
    options = some_options(
        column_options(values)
        or inline
        or split_options(str(values.get("multi-choice options") or ""))[1]
    )
    picture = store.file_of(need(values, "image"))
    return Sample(
        id=str(need(values, "index")),
        image=picture,
        question=question,
        answer=lettered(need(values, "answer"), options),
        options=options,
        boxes=pixel_boxes(need(values, "target_instances"), picture),
        category=str(need(values, "category")),
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


TREEBENCH = PublishedSet(
    name="treebench",
    fetch=hugging_face(
        "treebench", ["HaochenWang/TreeBench"], "TreeBench.tsv is all that is needed."
    ),
    read=reader("*treebench*.tsv", "*.tsv", "*.parquet", make=_sample),
    score=score_treebench,
    questions=405,
)
