"""`python -m bench [NAME ...]`: run benchmarks, print one table, merge the figures into
out/bench/results.json.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from bench.results import Result, merge, table
from bench.side_by_side import BenchError
from bench.task import PROMPTS, Setup
from lfpc.cli.typed import as_typed
from lfpc.errors import LfpcError

ROOT = Path(__file__).resolve().parents[1]


def _grpo_step_vs_trl(options: argparse.Namespace) -> Result:
    from bench.grpo_step_vs_trl import measure

    return measure(
        _prepare(options.out, options.warmup + options.steps, options.threads),
        ROOT,
        options.out,
        options.warmup,
    )


def _vision_sharing(options: argparse.Namespace) -> Result:
    from bench.vision_sharing import measure

    return measure(
        _prepare(options.out, options.warmup + options.steps, options.threads),
        ROOT,
        options.out,
        options.warmup,
    )


def _eval_overhead(options: argparse.Namespace) -> Result:
    from bench.eval_overhead import measure

    return measure(ROOT, options.out, repeats=options.steps)


def _eval_large(options: argparse.Namespace) -> Result:
    from bench.eval_large import measure

    return measure(ROOT, options.out)


def _select_large(options: argparse.Namespace) -> Result:
    from bench.select_large import measure

    return measure(ROOT, options.out)


def _large_picture(options: argparse.Namespace, *, fast: bool = False) -> Result:
    from bench.large_picture import measure

    return measure(options.out, options.steps, fast=fast)


def _selection(options: argparse.Namespace) -> Result:
    import torch

    from bench.selection import measure

    torch.set_num_threads(options.threads)
    return measure(options.out, options.steps)


def _probes_together(options: argparse.Namespace) -> Result:
    import torch

    from bench.probes_together import measure

    torch.set_num_threads(options.threads)
    return measure(options.out, options.steps)


BENCHMARKS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "grpo_step_vs_trl": _grpo_step_vs_trl,
    "vision_sharing": _vision_sharing,
    "eval_overhead": _eval_overhead,
    "eval_large": _eval_large,
    "select_large": _select_large,
    "large_picture": _large_picture,
    "large_picture_fast": partial(_large_picture, fast=True),
    "selection": _selection,
    "probes_together": _probes_together,
}


def _gpu(options: argparse.Namespace) -> int:
    from bench.gpu import TINY, lines, measure, published

    options.out.mkdir(parents=True, exist_ok=True)
    work = TINY if options.tiny else published()
    print(lines(measure(options.out, work, model=options.model, device=options.device)))
    print(f"figures in {options.out / 'gpu.json'}")
    return 0


def _profile(options: argparse.Namespace) -> int:
    from bench.profile_step import lines, measure

    found = measure(options.out, options.steps, options.threads)
    merge(options.out / "results.json", "profile", found)
    print(lines(found))
    return 0


def _scale(options: argparse.Namespace) -> int:
    from bench.scale import lines, measure

    found = measure(options.out, options.rows)
    merge(options.out / "results.json", "scale", found)
    print(lines(found))
    return 0


ALONE: dict[str, Callable[[argparse.Namespace], int]] = {
    "gpu": _gpu,
    "profile": _profile,
    "scale": _scale,
}
"""Measurements without another side, each run by itself."""


def main(words: Sequence[str] | None = None) -> int:
    """Run; 1 if a benchmark could not be run or compared different work."""
    options = _options(words)
    if len(options.names) == 1 and options.names[0] in ALONE:
        try:
            return ALONE[options.names[0]](options)
        except LfpcError as error:
            print(f"{options.names[0]}: {as_typed(str(error))}", file=sys.stderr)
            return 1
    results: dict[str, Result] = {}
    failed = 0
    for name in options.names or BENCHMARKS:
        try:
            results[name] = BENCHMARKS[name](options)
        except (BenchError, LfpcError) as error:
            failed = 1
            print(f"{name}: {as_typed(str(error))}", file=sys.stderr)
        else:
            merge(options.out / "results.json", name, results[name])
    if results:
        print(table(results))
        print(f"figures in {options.out / 'results.json'}")
    return failed


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure, side by side; ratios above 1 are in this package's favour.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"what to run: {', '.join(BENCHMARKS)} (default: all of these); or alone: gpu "
        "(sampling, updates and memory on one GPU, in at most nine minutes) profile (where a "
        "training step spends its seconds) or scale (seconds and memory of many rows)",
    )
    parser.add_argument(
        "--steps", type=int, default=5, help="timed steps or rounds per side (default: 5)"
    )
    parser.add_argument("--warmup", type=int, default=2, help="steps before them (default: 2)")
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1
    parser.add_argument(
        "--threads",
        type=int,
        default=threads,
        help="CPU threads of either side (default: OMP_NUM_THREADS, else all)",
    )
    parser.add_argument(
        "--rows", type=int, default=100_000, help="scale: rows of the mixture (default: 100,000)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out" / "bench", help="where results and logs go"
    )
    parser.add_argument(
        "--model", type=Path, help="gpu: checkpoint in place of random weights of 3B and 7B"
    )
    parser.add_argument("--device", default="auto", help="gpu: torch device (default: auto)")
    parser.add_argument(
        "--tiny", action="store_true", help="gpu: a tiny shape, to see whether it runs"
    )
    options = parser.parse_args(words)
    if len(options.names) > 1 and (alone := set(options.names) & set(ALONE)):
        parser.error(f"{min(alone)} runs alone")
    if unknown := set(options.names) - {*BENCHMARKS, *ALONE}:
        known = ", ".join((*BENCHMARKS, *ALONE))
        parser.error(f"unknown benchmark {min(unknown)!r}; known are {known}")
    if min(options.steps, options.threads, options.rows) < 1 or options.warmup < 0:
        parser.error("--steps, --threads and --rows must be at least 1, --warmup at least 0")
    if "gpu" not in options.names and (options.model or options.tiny or options.device != "auto"):
        parser.error("--model, --device and --tiny are for gpu")
    options.out = options.out.resolve()
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out {options.out} is a file; name a folder")
    return options


@cache
def _prepare(out: Path, steps: int, threads: int) -> Setup:
    """The data and the tiny checkpoint that the engines' benchmarks share."""
    from bench.checkpoint import warm_checkpoint
    from lfpc.mini.folders import write_split

    data = out / f"data-{steps}"
    samples = write_split(data, "train", PROMPTS * steps, relations=0.0)
    checkpoint = warm_checkpoint(out, samples[:16])
    return Setup(checkpoint=str(checkpoint), data=str(data), steps=steps, threads=threads)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; results of finished benchmarks are kept")
