"""ZoomBench (arXiv 2602.11858): 845 questions about a small region, multiple choice and open, with
the region's box.
"""

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from lfpc.errors import SampleError
from lfpc.metrics.summary import summarise
from lfpc.published.files import TableRow, files_like, read_rows
from lfpc.published.options import lettered, split_options
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.published_set import Found, PendingRow, PublishedSet, ReadOptions, hugging_face
from lfpc.published.reading import need, plain_question
from lfpc.samples import Sample


def read_zoombench(src: Path, options: ReadOptions) -> Iterator[Found]:
    """Rows of the JSON or parquet files below `src`, with the whole picture and without the
    published crop.
    """
    numbers = count(1)  # across files: the id of rows without their own
    for file in files_like(src, "*.parquet", "*.jsonl", "*.json"):
        store = options.store(file.parent)
        for row in read_rows(file):
            if isinstance(row, SampleError):
                yield row
            else:
                yield PendingRow(row, partial(_sample, row, store, next(numbers)))


def _sample(row: TableRow, store: PictureStore, number: int) -> Sample:
    values = row.values
    prompt = plain_question(str(need(values, "prompt", "question")))
    answer = str(need(values, "answer"))
    question, options = split_options(prompt)
    picture = store.file_of(need(values, "image"))
    return Sample(
        id=str(values.get("index", values.get("id", number))),
        image=picture,
        question=question if options else prompt,
        answer=lettered(answer, options) if options else answer,
        options=options,
        boxes=pixel_boxes(values.get("bbox"), picture),
        category=str(values.get("question_type") or values.get("category") or ""),
        source="zoombench",
    )


ZOOMBENCH = PublishedSet(
    name="zoombench",
    fetch=hugging_face(
        "zoombench",
        ["inclusionAI/ZoomBench"],
        "The parquet files, or a JSON list beside its pictures.",
    ),
    read=read_zoombench,
    score=summarise,
    questions=845,
)
