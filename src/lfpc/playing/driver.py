"""Two ways to play many samples, for the two kinds of policies. A sample that fails loses only
itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lfpc.episode import AsyncPolicy, Episode, Game, Policy, play, play_async
from lfpc.errors import LfpcError
from lfpc.samples import Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sample has no episode. `counts` says whether it speaks against the whole run: a broken
    picture does not.
    """

    why: str
    counts: bool


Start = Callable[[Sample], Game]
"""Opens the sample's picture and begins its episode; an LfpcError says that the picture is not
usable."""
Played = tuple[Sample, Episode | Failure, float]
"""A sample, what became of it, and its seconds."""
OnPlayed = Callable[[Sequence[Played]], None]
"""Is told what was played, as soon as it was. What it raises ends the playing."""


def play_batches(
    samples: Sequence[Sample], policy: Policy, start: Start, record: OnPlayed, *, batch: int
) -> None:
    """Play `batch` samples at a time in step, for a policy that computes many replies in one go;
    their seconds are shared out.
    """
    for first in range(0, len(samples), batch):
        part = samples[first : first + batch]
        began = time.perf_counter()
        results = _play_batch(part, policy, start)
        seconds = (time.perf_counter() - began) / len(part)
        record([(sample, result, seconds) for sample, result in zip(part, results, strict=True)])


def _play_batch(samples: Sequence[Sample], policy: Policy, start: Start) -> list[Episode | Failure]:
    """Play `samples` together; if that fails, one by one, so that the failure finds its sample."""
    games = [_try_start(start, sample) for sample in samples]
    results: dict[int, Episode | Failure] = {
        i: game for i, game in enumerate(games) if isinstance(game, Failure)
    }
    usable = {i: game for i, game in enumerate(games) if not isinstance(game, Failure)}
    try:
        results |= zip(usable, play(list(usable.values()), policy), strict=True)
    except Exception as error:
        log.warning(
            "a batch of %d questions failed (%s); asking them one by one", len(usable), error
        )
        for i in usable:
            try:
                results[i] = play([start(samples[i])], policy)[0]
            except Exception as alone:
                results[i] = _failure(alone, counts=True)
    return [results[i] for i in range(len(samples))]


async def play_concurrently(
    samples: Sequence[Sample],
    policy: AsyncPolicy,
    start: Start,
    record: OnPlayed,
    *,
    concurrency: int | None = None,
) -> None:
    """Play up to `concurrency` samples at once, each at its own pace; a sample's seconds are its
    own, waiting included.

    Without `concurrency` as many as the policy may have in play.
    """
    todo = iter(samples)

    async def player() -> None:
        for sample in todo:
            began = time.perf_counter()
            result = await _play_one(sample, policy, start)
            record([(sample, result, time.perf_counter() - began)])

    async with policy:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency or policy.concurrency, len(samples))):
                    group.create_task(player())
        except BaseExceptionGroup as several:  # the first to fail has cancelled the others
            raise several.exceptions[0] from None


async def _play_one(sample: Sample, policy: AsyncPolicy, start: Start) -> Episode | Failure:
    game = await asyncio.to_thread(_try_start, start, sample)
    if isinstance(game, Failure):
        return game
    try:
        return await play_async(game, policy)
    except Exception as error:
        return _failure(error, counts=True)


def _try_start(start: Start, sample: Sample) -> Game | Failure:
    try:
        return start(sample)
    except LfpcError as error:
        return _failure(error, counts=False)


def _failure(error: Exception, *, counts: bool) -> Failure:
    return Failure(
        str(error) if isinstance(error, LfpcError) else f"{type(error).__name__}: {error}", counts
    )
