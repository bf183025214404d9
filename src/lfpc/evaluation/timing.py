"""Seconds per question and questions per second, measured on a few questions asked again."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np

from lfpc.episode import AsyncPolicy, Episode, Game, Policy, episode, play
from lfpc.errors import RunError
from lfpc.evaluation.opened import first_view
from lfpc.images import open_picture
from lfpc.looks import Look
from lfpc.metrics.summary import Timing
from lfpc.playing.driver import Failure, Played, Start, one_game, play_samples
from lfpc.protocols import ChatProtocol
from lfpc.samples import Sample
from lfpc.storage.files import write_json

TIMING_FILE = "timing.json"
K = TypeVar("K")


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
    """Timing of `samples`, asked `concurrency` at a time.

    Resizing, crops and all replies count. Decoding files does not: it happens before the clock
    starts.

    Args:
        samples: the first `warm_up + questions` are asked; the first `warm_up` are not counted.
        policy: a policy in this process plays groups, and each question takes the group's time.
            With an AsyncPolicy each question has its own time, and starts when another ends.
        protocol, budget, look, max_turns: see `evaluate`.
        concurrency: questions in play at once.
        questions: maximum number of timed questions.
        warm_up: untimed questions before them.
    Raises:
        ValueError: no more samples than `warm_up`.
        PictureError: a picture cannot be opened.
        RunError: a question to an AsyncPolicy failed.
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

    if concurrency == 1 and not isinstance(policy, AsyncPolicy):
        asked = {"": (policy, start)}
        return time_by_turns(samples, asked, questions=questions, warm_up=warm_up)[""]
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


def time_by_turns(
    samples: Sequence[Sample],
    asked: Mapping[K, tuple[Policy, Start]],
    *,
    questions: int,
    warm_up: int = 1,
) -> dict[K, Timing]:
    """Timings of several policies, one question at a time. Each question goes to every policy
    before the next, in alternating order, so that a busy machine slows all of them alike.

    Args:
        samples: the first `warm_up + questions` are asked; the first `warm_up` are not counted.
        asked: a policy of this process with the function that starts its episodes, by name.
        questions: maximum number of timed questions.
        warm_up: untimed questions before them; fewer if no timed one would be left.
    """
    warm_up = min(warm_up, len(samples) - 1)
    took: dict[K, list[tuple[float, float]]] = {name: [] for name in asked}
    for number, sample in enumerate(samples[: warm_up + questions]):
        open_picture(sample.image)
        for name in list(asked)[:: 1 if number % 2 else -1]:
            policy, start = asked[name]
            began, cpu = time.perf_counter(), time.process_time()
            play([start(sample)], policy)
            took[name].append((time.perf_counter() - began, time.process_time() - cpu))
    return {name: _alone(pairs[warm_up:]) for name, pairs in took.items()}


def _alone(each: Sequence[tuple[float, float]]) -> Timing:
    """The timing of questions asked one at a time, from (seconds, CPU seconds) of each."""
    seconds = [one for one, _ in each]
    median, p95 = np.quantile(seconds, (0.5, 0.95))
    return Timing(
        concurrency=1,
        questions=len(each),
        median=float(median),
        p95=float(p95),
        per_second=len(each) / sum(seconds),
        cpu=float(np.median([cpu for _, cpu in each])),
        each=tuple(each),
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

    def record(some: Sequence[Played[Sample, Episode]]) -> None:
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
    """Write `timings` beside the evaluations in `run`."""
    write_json(run / TIMING_FILE, [asdict(timing) for timing in timings])


def read_timings(run: Path) -> list[Timing]:
    """The timings that `write_timings` wrote; empty without the file.

    Raises:
        RunError: the file is unreadable.
    """
    file = run / TIMING_FILE
    try:
        return (
            [
                Timing(**{**row, "each": tuple(map(tuple, row.get("each", ())))})
                for row in json.loads(file.read_text(encoding="utf-8"))
            ]
            if file.exists()
            else []
        )
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{file} is not readable ({error}); delete it to have the seconds measured again"
        ) from error
