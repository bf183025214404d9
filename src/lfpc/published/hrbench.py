"""HR-Bench 4K and 8K (arXiv 2408.15556): 200 questions, each asked four times with its options
rotated.

Published as TSV and as parquet, with pictures in base64, each in four rows. The TSV is preferred:
it needs the memory of one row, while the parquet file keeps all pictures in one page.
"""

from collections import defaultdict
from functools import partial
from hashlib import sha256
from statistics import fmean
from typing import Any

from lfpc.metrics.summary import Records, Summary, mean_with_error, summarise
from lfpc.published.files import TableRow
from lfpc.published.options import column_options, lettered, some_options
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import answer_of, need, reader
from lfpc.records import EpisodeRecord
from lfpc.samples import Sample


def _sample(row: TableRow, store: PictureStore, size: str) -> Sample:
    """The sample of a row. `meta`: "cycle", the rotation, and "cluster", the question."""
    values = row.values
    options = some_options(column_options(values))
    question = str(need(values, "question"))
    picture = store.file_of(need(values, "image"))
    same = "\n".join([picture.stem, question, *sorted(options)])
    return Sample(
        id=str(need(values, "index")),
        image=picture,
        question=question,
        answer=lettered(answer_of(values, "answer"), options),
        options=options,
        category=str(need(values, "category")),
        source=f"hrbench-{size}",
        meta={
            "cycle": str(need(values, "cycle_category")),
            "cluster": sha256(same.encode()).hexdigest()[:16],
        },
    )


def score_hrbench(records: Records) -> Summary:
    """`summarise`, but accuracies are means over rotations of per-rotation means.

        accuracy/c = 1/R sum_r mean_{i in rotation r, category c} right_i
                     with equal rotations the mean of all records

    Further figures: "cycle_R/accuracy" and "cycle_R/accuracy/C" for each rotation,
    "all_rotations_right" with its standard error over the questions with all rotations, and
    "incomplete", the number of the others.
    Source: HR-Bench, as VLMEvalKit computes it.
    """
    summary = summarise(records)
    cycles: defaultdict[str, list[EpisodeRecord]] = defaultdict(list)
    questions: defaultdict[str, list[EpisodeRecord]] = defaultdict(list)
    for record in records:
        cycles[_cycle(record)].append(record)
        questions[record.cluster].append(record)
    figures: dict[str, Any] = {}
    by_category: defaultdict[str, list[float]] = defaultdict(list)
    for cycle, some in sorted(cycles.items()):
        for category in ("", *sorted({record.sample.category for record in some})):
            accuracy = fmean(
                record.score for record in some if category in ("", record.sample.category)
            )
            by_category[category].append(accuracy)
            name = f"accuracy/{category}" if category else "accuracy"
            figures[f"cycle_{cycle}/{name}"] = accuracy
    for category, values in by_category.items():
        place = summary["categories"][category] if category else summary
        place["accuracy"] = fmean(values)
    whole = [some for some in questions.values() if set(map(_cycle, some)) == set(cycles)]
    figures |= mean_with_error(
        "all_rotations_right",
        [all(record.score == 1 for record in some) for some in whole],
        range(len(whole)),
    )
    return summary | {"figures": figures | {"incomplete": len(questions) - len(whole)}}


def _cycle(record: EpisodeRecord) -> str:
    """Number of the question's rotation in a record."""
    return str(record.sample.meta.get("cycle", ""))


def _hrbench(size: str, download: str) -> PublishedSet:
    return PublishedSet(
        name=f"hrbench-{size}",
        fetch=hugging_face(
            f"hrbench-{size}",
            ["DreamMr/HR-Bench"],
            f"hr_bench_{size}.tsv is enough. hr_bench_{size}.parquet also works, with more memory.",
            include=f"*{size}*.tsv",
            size=download,
        ),
        read=reader(f"*{size}*.tsv", f"*{size}*.parquet", make=partial(_sample, size=size)),
        score=score_hrbench,
        questions=800,
    )


HRBENCH_4K = _hrbench("4k", "1.93 GB")
HRBENCH_8K = _hrbench("8k", "4.63 GB")
