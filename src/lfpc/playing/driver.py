"""Many samples played at once: for evaluation, timing and resolution selection. A sample that fails
loses only itself.

What is played for a sample is an `Item`, a generator without a model call, as an episode is: it
yields a Question, receives its episodes, and returns a result. The driver has no influence on
results. A policy of this process gets full batches of questions; an AsyncPolicy plays as many
samples as it takes, each at its own pace.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, TypeVar

from lfpc.episode import AsyncPolicy, Episode, Game, Policy, play, play_async, run_async
from lfpc.errors import LfpcError, PictureError
from lfpc.playing.threads import THREADS
from lfpc.samples import Sample

log = logging.getLogger(__name__)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sample has no result. `counts` says whether it speaks against the whole run: a broken
    picture does not.
    """

    why: str
    counts: bool


@dataclass(frozen=True, slots=True)
class Question:
    """Games that are played together."""

    begin: Callable[[], Sequence[Game]]
    """Opens the picture and begins the games, in a thread; called again where a batch failed. An
    LfpcError says that the picture is not usable."""
    level: int = 0
    """A batch holds questions of one level, as long as there are enough; higher levels first."""
    keep: Callable[[Sequence[Episode]], None] = lambda episodes: None
    """Receives the episodes as soon as they are played. What it raises ends the playing."""


Item = Generator[Question, list[Episode], R]
"""What is played for one sample; it is driven in threads. A PictureError loses the sample, every
other exception ends the playing."""
Outcome = list[Episode] | Failure
"""What became of a question."""
Played = tuple[Sample, R | Failure, float]
"""A sample, what became of it, and its seconds."""
OnPlayed = Callable[[Sequence[Played[R]]], None]
"""Receives what was played, as soon as it was. What it raises ends the playing."""
Start = Callable[[Sample], Game]
"""Opens the sample's picture and begins its episode."""


def one_game(start: Start) -> Callable[[Sample], Item[Episode]]:
    """Items of one episode each, begun by `start`."""

    def item(sample: Sample) -> Item[Episode]:
        episodes = yield Question(lambda: [start(sample)])
        return episodes[0]

    return item


def play_samples(
    samples: Sequence[Sample],
    item: Callable[[Sample], Item[R]],
    policy: Policy | AsyncPolicy,
    record: OnPlayed[R],
    *,
    batch: int = 64,
    concurrency: int | None = None,
) -> None:
    """Play every sample's item. Can be called where an event loop runs (a notebook).

    Args:
        samples: begun in their order.
        item: what is played for a sample.
        policy: who replies. One of this process plays batches in step, whose seconds are shared
            out. Of an AsyncPolicy a sample's seconds are its own, waiting included.
        record: receives what was played, a batch or a single sample. Called in another thread where
            an AsyncPolicy is asked inside a running event loop.
        batch: questions that a policy of this process is asked together.
        concurrency: samples that an AsyncPolicy has in play; None: as many as it may have.
    """
    if isinstance(policy, AsyncPolicy):
        players = min(concurrency or policy.concurrency, len(samples))
        run_async(_play_concurrently(samples, item, policy, record, players))
    else:
        _play_batches(samples, item, policy, record, batch)


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[R]):
    """A sample whose item waits for a question to be played."""

    sample: Sample
    item: Item[R]
    question: Question
    seconds: float


def _go_on(
    sample: Sample, item: Item[R], outcome: Outcome | None = None, seconds: float = 0.0
) -> _Waiting[R] | Played[R]:
    """Drive `item` to its next question, or to its end. `outcome` is None at the beginning."""
    if isinstance(outcome, Failure):
        return sample, outcome, seconds
    try:
        question = next(item) if outcome is None else item.send(outcome)
    except StopIteration as end:
        return sample, end.value, seconds
    except PictureError as error:
        return sample, _failure(error, counts=False), seconds
    return _Waiting(sample, item, question, seconds)


def _begin(question: Question) -> Sequence[Game] | Failure:
    try:
        return question.begin()
    except LfpcError as error:
        return _failure(error, counts=False)


def _failure(error: Exception, *, counts: bool) -> Failure:
    return Failure(
        str(error) if isinstance(error, LfpcError) else f"{type(error).__name__}: {error}", counts
    )


def _play_batches(
    samples: Sequence[Sample],
    item: Callable[[Sample], Item[R]],
    policy: Policy,
    record: OnPlayed[R],
    batch: int,
) -> None:
    """Higher levels come first, so no more than a batch a level is under way."""
    todo = iter(samples)
    waiting: dict[int, list[_Waiting[R]]] = {}

    def place(found: Iterable[_Waiting[R] | Played[R]]) -> None:
        played: list[Played[R]] = []
        for each in found:
            if isinstance(each, _Waiting):
                waiting.setdefault(each.question.level, []).append(each)
            else:
                played.append(each)
        if played:
            record(played)

    with ThreadPoolExecutor(THREADS) as threads:
        while True:
            while not any(len(some) >= batch for some in waiting.values()) and (
                new := list(islice(todo, batch))
            ):
                place(threads.map(lambda sample: _go_on(sample, item(sample)), new))
            part = _take(waiting, batch)
            if not part:
                return
            place(_play_part(part, policy, threads))


def _take(waiting: dict[int, list[_Waiting[R]]], batch: int) -> list[_Waiting[R]]:
    """A full batch of the highest level that has one; else what there is, highest level first."""
    full = max((level for level, some in waiting.items() if len(some) >= batch), default=None)
    levels = sorted(waiting, reverse=True) if full is None else [full]
    part: list[_Waiting[R]] = []
    for level in levels:
        room = batch - len(part)
        part += waiting[level][:room]
        waiting[level] = waiting[level][room:]
    return part


def _play_part(
    part: Sequence[_Waiting[R]], policy: Policy, threads: ThreadPoolExecutor
) -> Iterator[_Waiting[R] | Played[R]]:
    began = time.perf_counter()
    outcomes = _outcomes([each.question for each in part], policy, threads)
    share = (time.perf_counter() - began) / len(part)
    return threads.map(
        lambda each, outcome: _go_on(each.sample, each.item, outcome, each.seconds + share),
        part,
        outcomes,
    )


def _outcomes(
    questions: Sequence[Question], policy: Policy, threads: ThreadPoolExecutor
) -> list[Outcome]:
    """Outcome `questions` together; if that fails, one by one, so that the failure finds its
    sample.
    """
    begun = list(threads.map(_begin, questions))
    usable = [games for games in begun if not isinstance(games, Failure)]
    try:
        episodes = iter(play(list(chain.from_iterable(usable)), policy))
    except Exception as error:
        if len(questions) == 1:
            return [_failure(error, counts=True)]
        log.warning(
            "a batch of %d questions failed (%s); asking them one by one", len(usable), error
        )
        return [_outcomes([question], policy, threads)[0] for question in questions]
    outcomes: list[Outcome] = []
    for question, games in zip(questions, begun, strict=True):
        outcome = games if isinstance(games, Failure) else list(islice(episodes, len(games)))
        if not isinstance(outcome, Failure):
            question.keep(outcome)
        outcomes.append(outcome)
    return outcomes


async def _play_concurrently(
    samples: Sequence[Sample],
    item: Callable[[Sample], Item[R]],
    policy: AsyncPolicy,
    record: OnPlayed[R],
    players: int,
) -> None:
    todo = iter(samples)

    async def player() -> None:
        for sample in todo:
            began = time.perf_counter()
            found = await asyncio.to_thread(_go_on, sample, item(sample))
            while isinstance(found, _Waiting):
                outcome = await _outcome(found.question, policy)
                found = await asyncio.to_thread(_go_on, sample, found.item, outcome)
            record([(sample, found[1], time.perf_counter() - began)])

    async with policy:
        await _together(player() for _ in range(players))


async def _outcome(question: Question, policy: AsyncPolicy) -> Outcome:
    games = await asyncio.to_thread(_begin, question)
    if isinstance(games, Failure):
        return games
    try:
        outcome = await _together(play_async(game, policy) for game in games)
    except Exception as error:
        return _failure(error, counts=True)
    question.keep(outcome)
    return outcome


async def _together(coroutines: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
    """Results in order. The first exception cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in coroutines]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]
