"""TreeBench (arXiv 2507.07999): 405 multiple choice questions with the boxes of their objects."""

from lfpc.boxes import target_iou
from lfpc.metrics.summary import Records, Summary, mean_with_error, summarise
from lfpc.published.files import TableRow
from lfpc.published.options import (
    column_options,
    lettered,
    some_options,
    split_options,
    without_listed,
)
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import answer_of, need, reader
from lfpc.samples import Sample


def _sample(row: TableRow, store: PictureStore) -> Sample:
    """The sample of a row; each instance is a target."""
    values = row.values
    text = str(need(values, "question"))
    options = some_options(
        column_options(values) or values.get("multi-choice options") or split_options(text)[1]
    )
    picture = store.file_of(need(values, "image"))
    return Sample(
        id=str(need(values, "index")),
        image=picture,
        question=without_listed(text, options),
        answer=lettered(answer_of(values, "answer"), options),
        options=options,
        boxes=pixel_boxes(need(values, "target_instances"), picture),
        category=str(need(values, "category")),
        source="treebench",
    )


def score_treebench(records: Records) -> Summary:
    """`summarise` with "miou", the localisation of the targets by the requested boxes; 0 for a
    question without a crop.

        miou = mean over questions of mean over targets of max over asked boxes of IoU

    Source: TreeBench, whose models write boxes into their reasoning; here a box is a call of the
    crop tool.
    """
    values = [target_iou(record.boxes, record.sample.boxes) or 0.0 for record in records]
    return summarise(records) | {
        "figures": mean_with_error("miou", values, [record.sample.id for record in records])
    }


TREEBENCH = PublishedSet(
    name="treebench",
    fetch=hugging_face(
        "treebench",
        ["HaochenWang/TreeBench"],
        "TreeBench.tsv is all that is needed.",
        include="*.tsv",
    ),
    read=reader("*treebench*.tsv", "*.tsv", "*.parquet", make=_sample),
    score=score_treebench,
    questions=405,
)
