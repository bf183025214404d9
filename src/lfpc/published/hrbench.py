"""HR-Bench 4K and 8K (arXiv 2408.15556): 200 questions, each asked four times with its options
rotated.

Published as TSV and as parquet, pictures in base64, the same picture in four rows. Of both files in
one folder the TSV is read: it needs the memory of one row, the parquet file keeps all its pictures
in one page.
"""

from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

from lfpc.metrics.summary import Records, Summary, mean_with_error, summarise
from lfpc.published.pictures import PictureStore
from lfpc.published.rows import (
    Found,
    column_options,
    files_like,
    lettered,
    need,
    samples_of,
    some_options,
)
from lfpc.records import EpisodeRecord
from lfpc.samples import Sample


def read_hrbench(size: str, folder: Path, work: Path) -> Found:
    """Samples of the files whose name or folder holds `size` ("4k" or "8k"). `meta`: "cycle", the
    rotation, and "cluster", the question.
    """
    files = files_like(folder, f"*{size}*.tsv", f"*{size}*.parquet")
    yield from samples_of(
        files,
        PictureStore(work / "pictures", roots=(folder,)),
        lambda row, store: _sample(row, store, size),
    )


def _sample(row: Mapping[str, Any], store: PictureStore, size: str) -> Sample:
    options = some_options(column_options(row))
    question = str(need(row, "question"))
    picture = store.file_of(need(row, "image"))
    same = "\n".join([picture.stem, question, *sorted(options)])
    return Sample(
        id=str(need(row, "index")),
        image=picture,
        question=question,
        answer=lettered(need(row, "answer"), options),
        options=options,
        category=str(need(row, "category")),
        source=f"hrbench-{size}",
        meta={
            "cycle": str(need(row, "cycle_category")),
            "cluster": sha256(same.encode()).hexdigest()[:16],
        },
    )


def score_hrbench(records: Records) -> Summary:
    """`summarise`, but accuracies are means over rotations of per-rotation means.

        accuracy/c = 1/R sum_r mean_{i in rotation r, category c} right_i
                     with equal rotations the mean of all records

    Further figures: "cycle_R/accuracy" and "cycle_R/accuracy/C" for each rotation,
    "all_rotations_right" with its standard error over those questions that were asked in every
    rotation, and "incomplete", the number of the others.
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
    """Which rotation of its question a record is of."""
    return str(record.sample.meta.get("cycle", ""))
