"""The driver of many samples, for evaluation, timing and resolution selection. A failed sample does
not stop the others.

Each sample has an `Item`, a generator without a model call, like an episode: it yields a Question,
receives its episodes, and returns a result. A policy in this process gets full batches of
questions. An AsyncPolicy plays `concurrency` samples, each at its own pace. Results do not depend
on the driver. What is called a sample here may be a sample with anything else that tells its items
apart, such as a probe.
"""

import asyncio
import logging
import time
from collections.abc import (
    Callable,
    Coroutine,
    Generator,
    Hashable,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Any, Generic, TypeVar

from lfpc.episode import AsyncPolicy, Episode, Game, Policy, play, play_async, run_async
from lfpc.errors import LfpcError, PictureError, PolicyError
from lfpc.playing.memory import return_freed_blocks
from lfpc.playing.threads import THREADS

log = logging.getLogger(__name__)
S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a sample has no result. `counts` is whether it counts against the run, which a
    broken picture does not.
    """

    why: str
    counts: bool


@dataclass(frozen=True, slots=True)
class Question:
    """Episodes to play together."""

    begin: Callable[[], Sequence[Game]]
    """Opens the picture and begins the episodes, in a thread; called again after a failed batch. An
    LfpcError means an unusable picture."""
    level: int = 0
    """Level of a search. A batch holds questions of one level if there are enough, higher levels
    first."""
    keep: Callable[[Sequence[Episode]], None] = lambda episodes: None
    """Called with the episodes at once. An exception ends the run."""


Item = Generator[Question, list[Episode], R]
"""Generator for one sample, driven in threads. A PictureError or PolicyError fails the sample; any
other exception ends the run."""
Outcome = list[Episode] | Failure
"""Result of a question."""
Played = tuple[S, R | Failure, float]
"""(sample, result, seconds)."""
OnPlayed = Callable[[Sequence[Played[S, R]]], None]
"""Called with finished samples at once. An exception ends the run."""
Start = Callable[[S], Game]
"""Opens a sample's picture and begins its episode."""


def one_game(start: Start[S]) -> Callable[[S], Item[Episode]]:
    """Items of one episode each, begun by `start`."""

    def item(sample: S) -> Item[Episode]:
        episodes = yield Question(lambda: [start(sample)])
        return episodes[0]

    return item


def play_samples(
    samples: Sequence[S],
    item: Callable[[S], Item[R]],
    policy: Policy | AsyncPolicy,
    record: OnPlayed[S, R],
    *,
    batch: int = 64,
    concurrency: int | None = None,
    one_by_one: Callable[[S], Hashable] = id,
) -> None:
    """Play every sample's item. Works inside a running event loop (a notebook).

    Args:
        samples: the samples, started in this order.
        item: function from a sample to its item.
        policy: gives the replies. A policy in this process plays batches turn by turn, whose
            seconds are divided among the samples. With an AsyncPolicy each sample has its own
            seconds, including waiting.
        record: called with a finished batch or sample; in another thread for an AsyncPolicy inside
            a running event loop.
        batch: questions per batch of a policy in this process, for each copy of its model.
        concurrency: samples in play with an AsyncPolicy; None: its own limit.
        one_by_one: key of a sample; an AsyncPolicy plays neighbours with one key after another, so
            that a server that keeps prompts reads theirs once.
    """
    if not samples:
        return
    if isinstance(policy, AsyncPolicy):
        players = min(concurrency or policy.concurrency, len(samples))
        groups = [list(some) for _, some in groupby(samples, one_by_one)]
        run_async(play_concurrently(groups, item, policy, record, players))
    else:
        _play_batches(samples, item, policy, record, batch * getattr(policy, "copies", 1))


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[S, R]):
    """A sample whose item waits for the result of a question."""

    sample: S
    item: Item[R]
    question: Question
    seconds: float


def _advance(
    sample: S, item: Item[R], outcome: Outcome | None = None, seconds: float = 0.0
) -> _Waiting[S, R] | Played[S, R]:
    """Advance `item` to its next question or its end. `outcome` is None at the beginning."""
    if isinstance(outcome, Failure):
        return sample, outcome, seconds
    try:
        question = next(item) if outcome is None else item.send(outcome)
    except StopIteration as end:
        return sample, end.value, seconds
    except PictureError as error:
        return sample, _failure(error, counts=False), seconds
    except PolicyError as error:
        return sample, _failure(error, counts=True), seconds
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
    samples: Sequence[S],
    item: Callable[[S], Item[R]],
    policy: Policy,
    record: OnPlayed[S, R],
    batch: int,
) -> None:
    """Play batches, higher levels first, so that at most a batch per level is waiting."""
    todo = iter(samples)
    waiting: dict[int, list[_Waiting[S, R]]] = {}

    def place(found: Iterable[_Waiting[S, R] | Played[S, R]]) -> None:
        played: list[Played[S, R]] = []
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
                place(threads.map(lambda sample: _advance(sample, item(sample)), new))
            part = _take(waiting, batch)
            if not part:
                return
            place(_play_part(part, policy, threads))


def _take(waiting: dict[int, list[_Waiting[S, R]]], batch: int) -> list[_Waiting[S, R]]:
    """A full batch of the highest level with one, else all waiting questions, highest level
    first.
    """
    full = max((level for level, some in waiting.items() if len(some) >= batch), default=None)
    levels = sorted(waiting, reverse=True) if full is None else [full]
    part: list[_Waiting[S, R]] = []
    for level in levels:
        room = batch - len(part)
        part += waiting[level][:room]
        waiting[level] = waiting[level][room:]
    return part


def _play_part(
    part: Sequence[_Waiting[S, R]], policy: Policy, threads: ThreadPoolExecutor
) -> Iterator[_Waiting[S, R] | Played[S, R]]:
    began = time.perf_counter()
    outcomes = _outcomes([each.question for each in part], policy, threads)
    share = (time.perf_counter() - began) / len(part)
    return threads.map(
        lambda each, outcome: _advance(each.sample, each.item, outcome, each.seconds + share),
        part,
        outcomes,
    )


def _outcomes(
    questions: Sequence[Question], policy: Policy, threads: ThreadPoolExecutor
) -> list[Outcome]:
    """Results of `questions` played together, or one by one after a failure, which identifies the
    failed sample.
    """
    begun = list(threads.map(_begin, questions))
    usable = [games for games in begun if not isinstance(games, Failure)]
    episodes: Iterator[Episode] = iter(())
    failure: Failure | None = None
    try:
        episodes = iter(play(list(chain.from_iterable(usable)), policy, each=threads.map))
    except Exception as error:
        failure = _failure(error, counts=True)
    if failure is not None:  # outside `except`, whose exception keeps the memory of the batch
        if len(questions) == 1:
            return [failure]
        log.warning(
            "a batch of %d questions failed (%s); asking them one by one", len(usable), failure.why
        )
        return [_outcomes([question], policy, threads)[0] for question in questions]
    outcomes: list[Outcome] = []
    for question, games in zip(questions, begun, strict=True):
        outcome = games if isinstance(games, Failure) else list(islice(episodes, len(games)))
        if not isinstance(outcome, Failure):
            question.keep(outcome)
        outcomes.append(outcome)
    return outcomes


async def play_concurrently(
    groups: Iterable[Sequence[S]],
    item: Callable[[S], Item[R]],
    policy: AsyncPolicy,
    record: OnPlayed[S, R],
    players: int,
) -> None:
    """Play every sample's item, `players` groups at a time, those of a group one after another; see
    `play_samples`. A group is taken as another ends.
    """
    return_freed_blocks()
    todo = iter(groups)

    async def player() -> None:
        for sample in chain.from_iterable(todo):
            began = time.perf_counter()
            found = await asyncio.to_thread(_advance, sample, item(sample))
            while isinstance(found, _Waiting):
                outcome = await _outcome(found.question, policy)
                found = await asyncio.to_thread(_advance, sample, found.item, outcome)
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
