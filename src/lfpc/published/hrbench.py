"""HR-Bench 4K and 8K (arXiv 2408.15556): 200 questions, each asked four times with its options
rotated.

Published as TSV and as parquet, pictures in base64, the same picture in four rows. Of both files in
one folder the TSV is read: it needs the memory of one row, the parquet file keeps all its pictures
in one page.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from statistics import fmean
from typing import Any

from lfpc.metrics.episodes import Row, cluster_of, score
from lfpc.metrics.scoring import mean_figures, score_rows
from lfpc.published.files import TableRow
from lfpc.published.options import column_options, lettered, some_options
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import need, reader
from lfpc.samples import Sample


def _sample(row: TableRow, store: PictureStore, size: str) -> Sample:
    """`meta`: "cycle", the rotation, and "cluster", the question."""
    values = row.values
    options = some_options(column_options(values))
    question = str(need(values, "question"))
    picture = store.file_of(need(values, "image"))
    same = "\n".join([picture.stem, question, *sorted(options)])
    return Sample(
        id=str(need(values, "index")),
        image=picture,
        question=question,
        answer=lettered(need(values, "answer"), options),
        options=options,
        category=str(need(values, "category")),
        source=f"hrbench-{size}",
        meta={
            "cycle": str(need(values, "cycle_category")),
            "cluster": sha256(same.encode()).hexdigest()[:16],
        },
    )


def score_hrbench(rows: Sequence[Row]) -> dict[str, Any]:
    """`score_rows`, but accuracies are means over rotations of per-rotation means, and questions
    must be right in every rotation.

        acc/c = 1/R sum_r mean_{i in rotation r, category c} right_i;   with equal rotations the
        mean of all rows

    Further figures: "cycle_R/acc" and "cycle_R/acc/C" for each rotation, "all_rotations_right" with
    its standard error over those questions that were asked in every rotation, and "incomplete", the
    number of the others. Source: HR-Bench, as VLMEvalKit computes it.
    """
    figures = score_rows(rows)
    cycles: defaultdict[str, list[Row]] = defaultdict(list)
    questions: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        cycles[str(row.get("meta", {}).get("cycle", ""))].append(row)
        questions[cluster_of(row)].append(row)
    by_category: defaultdict[str, list[float]] = defaultdict(list)
    for cycle, some in sorted(cycles.items()):
        for category in ("", *sorted({str(row["category"]) for row in some})):
            accuracy = fmean(score(row) for row in some if category in ("", row["category"]))
            name = f"acc/{category}" if category else "acc"
            by_category[name].append(accuracy)
            figures[f"cycle_{cycle}/{name}"] = accuracy
    figures |= {name: fmean(values) for name, values in by_category.items()}
    whole = [
        some
        for some in questions.values()
        if {row["meta"].get("cycle") for row in some if row.get("meta")} == set(cycles)
    ]
    figures |= mean_figures(
        "all_rotations_right",
        [all(score(row) == 1 for row in some) for some in whole],
        range(len(whole)),
    )
    return figures | {"incomplete": len(questions) - len(whole)}


def _hrbench(size: str) -> PublishedSet:
    return PublishedSet(
        name=f"hrbench-{size}",
        fetch=hugging_face(
            f"hrbench-{size}",
            ["DreamMr/HR-Bench"],
            f"One of hr_bench_{size}.tsv (least memory) and hr_bench_{size}.parquet is enough.",
        ),
        read=reader(f"*{size}*.tsv", f"*{size}*.parquet", make=partial(_sample, size=size)),
        score=score_hrbench,
        questions=800,
    )


HRBENCH_4K = _hrbench("4k")
HRBENCH_8K = _hrbench("8k")
