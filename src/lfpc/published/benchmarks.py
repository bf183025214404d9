"""Benchmarks, the published sets with a score: their samples, and their summaries."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lfpc.errors import SampleError
from lfpc.metrics.summary import Records, Summary, summarise
from lfpc.published.index import PUBLISHED, PublishedSet, unknown
from lfpc.published.published_set import ReadOptions
from lfpc.published.reading import sample_of
from lfpc.samples import Sample

log = logging.getLogger(__name__)


def benchmark(name: str) -> PublishedSet:
    """The benchmark called `name`.

    Raises:
        ConfigError: unknown benchmark; the message lists the known ones.
    """
    known = {each.name: each for each in PUBLISHED.values() if each.score}
    if name not in known:
        raise unknown("benchmark", name, known)
    return known[name]


def read_benchmark(
    name: str,
    folder: Path,
    work: Path,
    seed: int = 0,
    *,
    on_bad: Callable[[SampleError], None] | None = None,
) -> list[Sample]:
    """Every sample of a benchmark, in its published order.

    A question with the id of another one gets the number of its row, as in an import.

    Args:
        name: name of a set in `PUBLISHED` with a score.
        folder: folder of the published files, or its parent if it has the benchmark's name.
        work: folder for pictures from table cells, which benchmarks and runs may share.
        seed: seed of the order of options, for sets whose order gives the answer away.
        on_bad: called with every skipped row; None: each is logged as a warning.
    Raises:
        ConfigError: unknown benchmark.
        SampleError: no files of the published layout, or no usable row.
    """
    chosen = benchmark(name)
    inner = folder / name if (folder / name).is_dir() else folder
    if not inner.exists():
        raise SampleError(f"{inner}: no such folder; see `lfpc data fetch-instructions {name}`")
    report = on_bad or (lambda error: log.warning("skipped: %s", error))
    options = ReadOptions(pictures=work / "pictures", roots=(inner,), option_seed=seed)
    samples: dict[str, Sample] = {}
    skipped = 0
    for number, found in enumerate(chosen.read(inner, options), 1):
        made = sample_of(found)
        if not isinstance(made, Sample):
            problem = str(made)
        elif made.id in samples and _asked(made) == _asked(samples[made.id]):
            problem = f"{inner}: sample id {made.id!r} is there twice; the second one is left out"
        else:
            if made.id in samples:
                made = replace(made, id=f"{made.id}#{number}")
            samples[made.id] = made
            continue
        skipped += 1
        report(SampleError(problem))
    if not samples:
        raise SampleError(
            f"{inner}: no usable row, {skipped} skipped; see `lfpc data fetch-instructions {name}`"
        )
    if skipped or chosen.questions not in (None, len(samples)):
        expected = f", the published set has {chosen.questions}" if chosen.questions else ""
        log.warning(
            "%s: %d questions read, %d rows skipped%s", name, len(samples), skipped, expected
        )
    return list(samples.values())


def _asked(sample: Sample) -> tuple[object, ...]:
    """What a sample asks: equal for a row that is there twice."""
    return sample.image, sample.question, sample.options, sample.answer


def score_task(task: str, records: Records) -> Summary:
    """The summary of a task's records by the benchmark's own rule; for any other task `summarise`.

    Args:
        task: a benchmark, or any name.
        records: records of one or several runs of the same questions.
    """
    known = PUBLISHED.get(task)
    return known.score(records) if known and known.score else summarise(records)
