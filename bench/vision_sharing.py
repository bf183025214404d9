"""The local engine with `share` on (ours) and off (theirs): seconds a step and what passes through
the vision tower a step.

Off, every rollout's pictures and prompt are computed by themselves, for sampling each turn and for
the update; the numbers are the same. `ratio` is how many times longer a step takes without sharing;
passes and tokens are those of a step.
"""

import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bench.grpo_step_vs_trl import both, check_same_work
from bench.side_by_side import Worker, environment, take_turns
from bench.task import Setup


def measure(setup: Setup, root: Path, out: Path, warmup: int) -> dict[str, Any]:
    """Group 8, 256 visual tokens of the first view."""
    setup = replace(setup, budget=256)
    env = environment(setup.threads, root)
    workers = []
    for share in (True, False):
        name = f"share_{'on' if share else 'off'}"
        file = replace(setup, share=share).save(out / f"{name}.json")
        workers.append(
            Worker(
                name,
                [sys.executable, "-m", "bench.lfpc_side", str(file)],
                env,
                root,
                out / f"{name}.log",
            )
        )
    on, off = take_turns(
        workers, warmup=warmup, steps=setup.steps - warmup, title="sharing on and off"
    )
    check_same_work(on, off)
    seconds = both(on, off, "seconds", median)
    return {
        "ratio": seconds["theirs"] / seconds["ours"],
        **seconds,
        "unit": "s/step",
        "at_best": median(step["limit"] for step in on),
        "steps": len(on),
        "threads": setup.threads,
        "cpu_seconds_per_step": both(on, off, "cpu_seconds", median),
        "vision_passes": both(on, off, "vision_passes", fmean),
        "vision_tokens": both(on, off, "vision_tokens", fmean),
        "peak_memory_mib": both(on, off, "peak_mib", max),
    }
