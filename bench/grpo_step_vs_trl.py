"""A GRPO step of the local engine against one of TRL's GRPOTrainer with `environment_factory`.

Both start from the same checkpoint and see the same pictures: 8 questions, two turns with a crop of
16 to 25 visual tokens between them, the same number of sampled tokens, every rollout trained on,
float32, the same number of threads. That they did is checked, not assumed. Rollouts per second are
those of the median step; memory is the peak of each side's process. On a machine that does other
things too, CPU seconds say more than seconds.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bench.side_by_side import BenchError, Facts, Worker, environment, take_turns
from bench.task import Setup
from environments import SetupError, make

TURNS = 2
TOOL_RATE = 0.98
TOLERANCE = 0.02
"""Replies per rollout, least share of rollouts with a crop, and how far counted work may differ
between the sides."""
COUNTED = ("turns", "policy_tokens", "context_tokens", "visual_tokens")


def measure(setup: Setup, root: Path, out: Path, warmup: int) -> dict[str, Any]:
    """Group 8 and 16 at 25 visual tokens of the first view, and group 8 at 256.

    Raises:
        BenchError: TRL cannot be installed, or the sides did different work.
    """
    python = _trl_python()
    variants = {
        "group_8": setup,
        "group_16": replace(setup, group=16),
        "budget_256": replace(setup, budget=256),
    }
    rows = {
        name: _compare(name, variant, python, root, out, warmup)
        for name, variant in variants.items()
    }
    return {**rows.pop("group_8"), **rows}


def _trl_python() -> Path:
    """TRL in an environment of its own, with the versions in use here."""
    try:
        return make(
            "trl",
            [
                f"{name}=={version(name).partition('+')[0]}"
                for name in ("torch", "transformers", "numpy", "pillow")
            ],
        )
    except SetupError as error:
        raise BenchError(str(error)) from error


def _compare(
    name: str, setup: Setup, python: Path, root: Path, out: Path, warmup: int
) -> dict[str, Any]:
    file = str(setup.save(out / f"{name}.json"))
    env = environment(setup.threads, root)
    workers = [
        Worker(
            "the local engine",
            [sys.executable, "-m", "bench.lfpc_side", file],
            env,
            root,
            out / f"{name}.lfpc.log",
        ),
        Worker(
            "TRL", [str(python), "-m", "bench.trl_side", file], env, root, out / f"{name}.trl.log"
        ),
    ]
    ours, theirs = take_turns(
        workers, warmup=warmup, steps=setup.steps - warmup, title=f"step against TRL, {name}"
    )
    check_same_work(ours, theirs)
    return _result(setup, ours, theirs)


def check_same_work(ours: Sequence[Facts], theirs: Sequence[Facts]) -> None:
    """Refuse a comparison of different work.

    Raises:
        BenchError: says what differed.
    """
    wrong: list[str] = []
    for side, steps in (("the local engine", ours), ("TRL", theirs)):
        for fact in ("tool_rate", "trained"):
            if (least := min(step[fact] for step in steps)) < TOOL_RATE:
                wrong.append(f"{side}: {fact} {least:.3f} in one step, {TOOL_RATE} is the least")
    for fact in COUNTED:
        a, b = (fmean(step[fact] for step in steps) for steps in (ours, theirs))
        if abs(a - b) > TOLERANCE * b or (fact == "turns" and abs(b - TURNS) > TOLERANCE * TURNS):
            wrong.append(f"{fact} per rollout: {a:.2f} here, {b:.2f} in TRL")
    if wrong:
        raise BenchError("the two sides did different work: " + "; ".join(wrong))


def _result(setup: Setup, ours: Sequence[Facts], theirs: Sequence[Facts]) -> dict[str, Any]:
    seconds = both(ours, theirs, "seconds", median)
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
    peak, loaded = (both(ours, theirs, fact, max) for fact in ("peak_mib", "loaded_mib"))
    return {
        "ratio": seconds["theirs"] / seconds["ours"],
        **{side: setup.rollouts / spent for side, spent in seconds.items()},
        "unit": "rollouts/s",
        "at_best": setup.rollouts / median(step["limit"] for step in ours),
        "ratio_range": [min(ratios), max(ratios)],
        "steps": len(ours),
        "threads": setup.threads,
        "cpu_seconds_per_step": both(ours, theirs, "cpu_seconds", median),
        "peak_memory_mib": peak,
        "peak_memory_above_loaded_mib": {side: peak[side] - loaded[side] for side in peak},
        "tool_rate": both(ours, theirs, "tool_rate", fmean),
        "per_rollout": {fact: both(ours, theirs, fact, fmean) for fact in COUNTED},
    }


def both(
    ours: Sequence[Facts],
    theirs: Sequence[Facts],
    fact: str,
    fold: Callable[[Iterable[float]], float],
) -> dict[str, float]:
    """One fact over the steps of either side."""
    return {
        side: fold([step[fact] for step in steps])
        for side, steps in (("ours", ours), ("theirs", theirs))
    }
