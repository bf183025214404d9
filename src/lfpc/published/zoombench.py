"""ZoomBench (arXiv 2602.11858): 845 questions about a small region, multiple choice and open, with
the region's box.

Published as parquet with `image`, `query` and `response` (an older one: `prompt` and `answer`); the
authors' converter writes a JSON list with `images`, names that begin in the folder it ran in.
"""

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from lfpc.errors import MissingPicture, SampleError
from lfpc.metrics.summary import summarise
from lfpc.published.files import TableRow, files_like, read_rows
from lfpc.published.options import lettered, some_options, with_options, without_listed
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.published_set import Found, PendingRow, PublishedSet, ReadOptions, hugging_face
from lfpc.published.reading import answer_of, need, one_picture, plain_question, text_of
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
    prompt = plain_question(str(need(values, "query", "prompt", "question")))
    answer = answer_of(values, "response", "answer")
    options: tuple[str, ...] = ()
    if listed := next((values[name] for name in ("options", "choices") if values.get(name)), None):
        options = some_options(listed)
        prompt = without_listed(prompt, options)
        answer = lettered(answer, options)
    else:
        prompt, options, answer = with_options(prompt, answer)
    picture = _picture(need(values, "images", "image"), row.file.parent, store)
    return Sample(
        id=text_of(values, "id", "index", default=str(number)),
        image=picture,
        question=prompt,
        answer=answer,
        options=options,
        boxes=pixel_boxes(values.get("bbox"), picture),
        category=text_of(values, "question_type", "category"),
        source="zoombench",
    )


def _picture(cells: Any, folder: Path, store: PictureStore) -> Path:
    """The picture of a row; a name of the converter is also looked for beside the JSON list."""
    try:
        return one_picture(cells, store)
    except MissingPicture:
        name = Path(str(cells[0] if isinstance(cells, list) else cells))
        beside = folder / name.parent.name / name.name
        if not beside.is_file():
            raise
        return beside


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
