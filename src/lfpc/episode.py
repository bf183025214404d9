"""The episode loop, a generator without a model call, which training, selection, evaluation,
probes, pages and people drive.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol, TypeVar, runtime_checkable

from lfpc.answers import Verdict, check_answer
from lfpc.boxes import Box
from lfpc.dialogue import (
    Answer,
    Context,
    Crop,
    Malformed,
    Reply,
    Turn,
    crop_boxes,
    crop_turns,
)
from lfpc.images import View
from lfpc.looks import Look
from lfpc.protocols import ChatProtocol
from lfpc.samples import Sample

T = TypeVar("T")


class Stop(StrEnum):
    """Reason of an episode's end."""

    ANSWERED = "answered"
    MAX_TURNS = "max_turns"


@dataclass(frozen=True)  # without slots: the verdict is cached
class Episode:
    """A finished episode."""

    sample: Sample
    first_view: View
    turns: tuple[Turn, ...]
    stop: Stop
    judged: Verdict | None = None
    """A judge's verdict; None: rules alone."""

    @property
    def answer(self) -> str | None:
        """The final answer's text; None if the policy never answered."""
        last = self.turns[-1].action if self.turns else None
        return last.text if isinstance(last, Answer) else None

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on the answer, the judge's if there is one; computed once."""
        return self.judged or check_answer(self.answer, self.sample)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Every requested box, in order, but for a last turn's; see `crop_turns`."""
        return crop_boxes(self.turns)

    @property
    def shown_crops(self) -> int:
        """Number of crops that were shown."""
        return sum(turn.view is not None for turn in crop_turns(self.turns))

    @property
    def malformed(self) -> tuple[Malformed, ...]:
        """Every malformed reply, in order."""
        return tuple(turn.action for turn in self.turns if isinstance(turn.action, Malformed))

    @property
    def views(self) -> tuple[View, ...]:
        """Every picture the policy saw, the first view first."""
        return (self.first_view, *(turn.view for turn in self.turns if turn.view is not None))


Game = Generator[Context, Reply, Episode]


class Policy(Protocol):
    """Anything that can reply: a model in this process, a served model, a script, a person."""

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in the same order."""
        ...


@runtime_checkable
class AsyncPolicy(AbstractAsyncContextManager[Any], Protocol):
    """A policy that replies to many contexts concurrently, such as a served model. It is used
    inside `async with`.
    """

    @property
    def concurrency(self) -> int:
        """Maximum number of concurrent episodes."""
        ...

    async def reply_to(self, context: Context) -> Reply:
        """The reply to one context."""
        ...


def episode(
    sample: Sample,
    first_view: View,
    *,
    look: Look,
    protocol: ChatProtocol,
    max_turns: int = 6,
    draw: int = 0,
) -> Game:
    """Play one question: yields what the policy may see, receives its reply, returns the Episode.

    A malformed reply does not end the episode: the policy reads why, and continues while it has
    turns left. A protocol with a fixed number of turns may end before `max_turns`. A crop that the
    last turn asks for is not cut, as no reply would see it. Episodes of one sample with different
    `draw` are sampled independently.
    """
    key = f"{sample.id} {draw}" if draw else sample.id
    limit = min(max_turns, protocol.turns or max_turns)
    turns: tuple[Turn, ...] = ()
    while len(turns) < limit:
        context = Context(sample.question, sample.options, first_view, turns, key)
        reply = yield context
        match protocol.parse(reply.text, context.views):
            case Crop() as action:
                seen = len(turns) + 1 < limit
                turns += (Turn(reply, action, look(sample, action.shown) if seen else None),)
            case Answer() as action:
                return Episode(sample, first_view, (*turns, Turn(reply, action)), Stop.ANSWERED)
            case Malformed() as action:
                turns += (Turn(reply, action),)
    return Episode(sample, first_view, turns, Stop.MAX_TURNS)


def play(
    games: Sequence[Game], policy: Policy, *, each: Callable[..., Iterable[Any]] = map
) -> list[Episode]:
    """The episodes of `games`, in order, played together with one batched policy call per turn.

    Args:
        games: the episodes to play.
        policy: gives the replies. Its method `together`, if it has one, divides the numbers of the
            first contexts into groups, which are played one after another.
        each: `map`, or that of a thread pool, in which the crops of a turn are cut side by side.
    """
    found = list(each(_next, games))
    begun = [i for i, one in enumerate(found) if isinstance(one, Context)]
    for group in getattr(policy, "together", all_together)([found[i] for i in begun]):
        playing = [begun[n] for n in group]
        while playing := [i for i in playing if isinstance(found[i], Context)]:
            replies = policy.reply([found[i] for i in playing])
            replied = list(zip((games[i] for i in playing), replies, strict=True))
            after = each(_next, *zip(*replied, strict=True))
            for i, one in zip(playing, after, strict=True):
                found[i] = one
    return found


def all_together(contexts: Sequence[Context]) -> list[Sequence[int]]:
    """The numbers of `contexts` as one group."""
    return [range(len(contexts))]


def _next(game: Game, reply: Reply | None = None) -> Any:
    """The next context or the episode after `reply` (None: at the beginning)."""
    try:
        return next(game) if reply is None else game.send(reply)
    except StopIteration as end:
        return end.value


async def advance(game: Game, reply: Reply | None = None) -> Context | Episode:
    """The next context or the episode after `reply` (None: at the beginning). Picture work (the
    look) runs in a thread, so that other episodes continue.
    """
    return await asyncio.to_thread(_next, game, reply)


async def play_async(game: Game, policy: AsyncPolicy) -> Episode:
    """Drive one episode."""
    found = await advance(game)
    while isinstance(found, Context):
        found = await advance(game, await policy.reply_to(found))
    return found


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of `coroutine`, as from asyncio.run; inside a running event loop (a notebook), it
    runs in a separate thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return _run_in_thread(coroutine)
    return asyncio.run(coroutine)


def _run_in_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` in a thread; an exception here (Ctrl-C) cancels it."""
    task: Future[asyncio.Task[T]] = Future()

    async def main() -> T:
        task.set_result(asyncio.create_task(coroutine))
        return await task.result()

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(lambda: asyncio.run(main()))
        try:
            return done.result()
        finally:
            if not done.done():
                running = task.result()
                running.get_loop().call_soon_threadsafe(running.cancel)
