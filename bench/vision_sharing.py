"""The local engine with `share` on (ours) and off (theirs): seconds a step and what passes through the vision tower a step.

Off, every rollout's pictures and prompt are computed by themselves, for sampling each turn and for the update; the numbers are
the same. `ratio` is how many times longer a step takes without sharing.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bench.grpo_step_vs_trl import check_same_work
from bench.side_by_side import Facts, Worker, environment, take_turns
from bench.task import Setup


def measure(setup: Setup, root: Path, out: Path, warmup: int) -> dict[str, Any]:
    """Group 8, 256 visual tokens of the first view."""
    setup = replace(setup, budget=256)
    env, workers = environment(setup.threads, root), []
    for share in (True, False):
        name = f"share_{'on' if share else 'off'}"
        file = replace(setup, share=share).save(out / f"{name}.json")
        workers.append(Worker(name, [sys.executable, "-m", "bench.lfpc_side", str(file)], env, root, out / f"{name}.log"))
    on, off = take_turns(workers, warmup=warmup, steps=setup.steps - warmup, title="sharing on and off")
    check_same_work(on, off)
    return {
        **_pair(on, off, "seconds", median),
        "unit": "s/step",
        "steps": len(on),
        "threads": setup.threads,
        "vision_passes": {**_pair(on, off, "vision_passes", fmean), "unit": "pictures/step"},
        "vision_tokens": {**_pair(on, off, "vision_tokens", fmean), "unit": "tokens/step"},
        "peak_memory_mib": {"ours": on[-1]["peak_mib"], "theirs": off[-1]["peak_mib"]},
    }


def _pair(on: Sequence[Facts], off: Sequence[Facts], fact: str, fold: Callable[[Iterable[float]], float]) -> dict[str, float]:
    ours, theirs = (fold([step[fact] for step in steps]) for steps in (on, off))
    return {"ratio": theirs / ours, "ours": ours, "theirs": theirs}
