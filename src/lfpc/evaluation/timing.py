"""Seconds per question and questions per second, measured by asking a few questions again."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lfpc.episode import AsyncPolicy, Episode, Game, Policy, episode, play
from lfpc.errors import RunError
from lfpc.evaluation.run import first_view
from lfpc.images import open_picture
from lfpc.looks import Look
from lfpc.metrics.summary import Timing
from lfpc.playing.driver import Failure, Played, Start, one_game, play_samples
from lfpc.protocols import ChatProtocol
from lfpc.samples import Sample
from lfpc.storage.files import write_json

TIMING_FILE = "timing.json"


def time_questions(
    samples: Sequence[Sample],
    policy: Policy | AsyncPolicy,
    *,
    protocol: ChatProtocol,
    budget: int | None,
    look: Look,
    max_turns: int = 6,
    concurrency: int = 1,
    questions: int = 20,
    warm_up: int = 1,
) -> Timing:
    """Ask `samples`, `concurrency` of them together, and time them.

    Files are decoded before the clock starts, as they cost every arm the same; resizing, crops and
    all replies are in it.

    Args:
        samples: the first `warm_up + questions` are asked; the first `warm_up` are not counted.
        policy: one of this process is asked in groups, whose questions all take the group's time;
            of an AsyncPolicy each question has its own time, and the next one begins when one ends.
        protocol, budget, look, max_turns: see `evaluate`.
        concurrency: questions played together.
        questions: how many are counted at most.
        warm_up: questions asked before.
    Raises:
        ValueError: there are no more samples than `warm_up`.
        PictureError: a picture cannot be opened.
        RunError: a question that an AsyncPolicy was asked failed.
    """
    if len(samples) <= warm_up:
        raise ValueError(f"timing needs more than {warm_up} samples, got {len(samples)}")

    def start(sample: Sample) -> Game:
        view = first_view(sample, budget, factor=protocol.factor)
        return episode(sample, view, look=look, protocol=protocol, max_turns=max_turns)

    def ask(some: Sequence[Sample]) -> tuple[list[float], float]:
        if isinstance(policy, AsyncPolicy):
            return _ask_concurrently(some, policy, start, concurrency)
        return _ask_groups(some, policy, start, concurrency)

    if warm_up:
        ask(samples[:warm_up])
    counted = samples[warm_up : warm_up + questions]
    took, whole = ask(counted)
    median, p95 = np.quantile(took, (0.5, 0.95))
    return Timing(
        concurrency=concurrency,
        questions=len(counted),
        median=float(median),
        p95=float(p95),
        per_second=len(counted) / whole,
    )


def _ask_groups(
    samples: Sequence[Sample], policy: Policy, start: Start, concurrency: int
) -> tuple[list[float], float]:
    """(seconds of each question, seconds of all)."""
    took: list[float] = []
    whole = 0.0
    for first in range(0, len(samples), concurrency):
        group = samples[first : first + concurrency]
        for sample in group:
            open_picture(sample.image)
        began = time.perf_counter()
        play([start(sample) for sample in group], policy)
        seconds = time.perf_counter() - began
        took += [seconds] * len(group)
        whole += seconds
    return took, whole


def _ask_concurrently(
    samples: Sequence[Sample], policy: AsyncPolicy, start: Start, concurrency: int
) -> tuple[list[float], float]:
    """(seconds of each question, seconds of all)."""
    took: list[float] = []

    def record(some: Sequence[Played[Episode]]) -> None:
        for sample, result, seconds in some:
            if isinstance(result, Failure):
                raise RunError(f"timing: question {sample.id!r} failed: {result.why}")
            took.append(seconds)

    for sample in samples:
        open_picture(sample.image)
    began = time.perf_counter()
    play_samples(samples, one_game(start), policy, record, concurrency=concurrency)
    return took, time.perf_counter() - began


def write_timings(run: Path, timings: Sequence[Timing]) -> None:
    """Keep `timings` with the evaluations in `run`."""
    write_json(run / TIMING_FILE, [asdict(timing) for timing in timings])


def read_timings(run: Path) -> list[Timing]:
    """What `write_timings` wrote; empty where it did not.

    Raises:
        RunError: the file is not readable.
    """
    file = run / TIMING_FILE
    try:
        return (
            [Timing(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
            if file.exists()
            else []
        )
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{file} is not readable ({error}); delete it to have the seconds measured again"
        ) from error
