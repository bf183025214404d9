"""Published benchmarks, one file each: `BENCHMARKS` is the index. Files are read from a folder;
nothing is downloaded.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from lfpc.errors import ConfigError, SampleError
from lfpc.metrics.summary import Records, Summary, summarise
from lfpc.published.benchmark import Benchmark
from lfpc.published.hrbench import read_hrbench, score_hrbench
from lfpc.published.mme_realworld import read_mme_realworld
from lfpc.published.rows import Found
from lfpc.published.treebench import read_treebench, score_treebench
from lfpc.published.visualprobe_benchmark import read_visualprobe
from lfpc.published.vstar import read_vstar
from lfpc.published.zoombench import read_zoombench
from lfpc.samples import Sample, scan_samples

log = logging.getLogger(__name__)


def _hugging_face(repositories: Sequence[str], rest: str) -> str:
    commands = "".join(
        f"\n  hf download {name} --repo-type dataset --local-dir DIR/{{task}}"
        for name in repositories
    )
    return f"Hugging Face data set {', '.join(repositories)}:{commands}\n{rest}"


def _hrbench(size: str) -> Benchmark:
    def read(folder: Path, work: Path, seed: int) -> Found:
        return read_hrbench(size, folder, work)

    fetch = _hugging_face(
        ["DreamMr/HR-Bench"],
        f"One of hr_bench_{size}.tsv (least memory) and hr_bench_{size}.parquet is enough.",
    )
    return Benchmark(
        name=f"hrbench-{size}", read=read, score=score_hrbench, fetch=fetch, questions=800
    )


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="vstar",
            read=read_vstar,
            score=summarise,
            fetch=_hugging_face(
                ["craigwu/vstar_bench"],
                "Folders direct_attributes and relative_position, with or without "
                "test_questions.jsonl.",
            ),
            questions=191,
        ),
        _hrbench("4k"),
        _hrbench("8k"),
        Benchmark(
            name="visualprobe",
            read=read_visualprobe,
            score=summarise,
            fetch=_hugging_face(
                [
                    "Mini-o3/VisualProbe_Easy",
                    "Mini-o3/VisualProbe_Medium",
                    "Mini-o3/VisualProbe_Hard",
                ],
                "Keep each part in a folder of its name "
                "(DIR/{task}/VisualProbe_Hard/val.json): the name becomes the category.",
            ),
        ),
        Benchmark(
            name="treebench",
            read=read_treebench,
            score=score_treebench,
            fetch=_hugging_face(["HaochenWang/TreeBench"], "TreeBench.tsv is all that is needed."),
            questions=405,
        ),
        Benchmark(
            name="zoombench",
            read=read_zoombench,
            score=summarise,
            fetch=_hugging_face(
                ["inclusionAI/ZoomBench"], "The parquet files, or a JSON list beside its pictures."
            ),
            questions=845,
        ),
        Benchmark(
            name="mme-realworld-lite",
            read=read_mme_realworld,
            score=summarise,
            fetch=_hugging_face(
                ["yifanzhang114/MME-RealWorld-lite-lmms-eval"],
                "The parquet files; or the unpacked data.zip of "
                "yifanzhang114/MME-RealWorld-Lite: a JSON list and the folder imgs.",
            ),
        ),
        Benchmark(
            name="samples",
            read=lambda folder, work, seed: scan_samples(folder),
            score=summarise,
            fetch="Any samples folder: samples.jsonl beside its pictures. `lfpc data check DIR` "
            "says whether it can be played.",
        ),
    )
}


def benchmark(name: str) -> Benchmark:
    """The benchmark called `name`.

    Raises:
        ConfigError: there is none; the known ones are named.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"unknown benchmark {name!r}; known are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def fetch_instructions(name: str) -> str:
    """Where a person gets the files of a benchmark, and how the folder should look then."""
    return benchmark(name).fetch.replace("{task}", name)


def read_benchmark(
    name: str,
    folder: Path,
    work: Path,
    seed: int = 0,
    *,
    on_bad: Callable[[SampleError], None] | None = None,
) -> list[Sample]:
    """Every sample of a benchmark, in its published order.

    Args:
        name: a key of `BENCHMARKS`.
        folder: holds the published files, itself or in a folder of the benchmark's name.
        work: folder for pictures out of table cells; may be shared by benchmarks and runs.
        seed: of the order of options, where the published order gives the answer away.
        on_bad: is told of every row that is skipped; None: each is logged as a warning.
    Raises:
        ConfigError: no such benchmark.
        SampleError: no files of the published layout, or no usable row in them.
    """
    chosen = benchmark(name)
    inner = folder / name if (folder / name).is_dir() else folder
    if not inner.exists():
        raise SampleError(
            f"{inner}: no such folder; `lfpc data fetch-instructions {name}` says what "
            f"belongs there"
        )
    tell = on_bad or (lambda error: log.warning("skipped: %s", error))
    samples: dict[str, Sample] = {}
    skipped = 0
    for found in chosen.read(inner, work, seed):
        if isinstance(found, Sample) and found.id in samples:
            found = SampleError(
                f"{inner}: sample id {found.id!r} is there twice; the second one is left out"
            )
        if isinstance(found, Sample):
            samples[found.id] = found
        else:
            skipped += 1
            tell(found)
    if not samples:
        raise SampleError(
            f"{inner}: no usable row, {skipped} skipped; `lfpc data fetch-instructions "
            f"{name}` says what belongs there"
        )
    if skipped or chosen.questions not in (None, len(samples)):
        expected = f", the published set has {chosen.questions}" if chosen.questions else ""
        log.warning(
            "%s: %d questions read, %d rows skipped%s", name, len(samples), skipped, expected
        )
    return list(samples.values())


def score_task(task: str, records: Records) -> Summary:
    """The summary of a task's records, by the benchmark's own rule; any other task gets the common
    one, `summarise`.

    Args:
        task: a benchmark, or any name.
        records: several runs of the same questions may be put together.
    """
    known = BENCHMARKS.get(task)
    return known.score(records) if known else summarise(records)


__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "benchmark",
    "fetch_instructions",
    "read_benchmark",
    "score_task",
]
