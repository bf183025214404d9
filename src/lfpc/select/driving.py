"""Many searches down the ladder at once, so that the model always has enough to do. What is chosen
does not depend on it.

A policy of this process gets full batches of questions at one level; a served one as many requests
as it takes, each sample at its own pace. Either way a sample's next level follows at once, and
samples whose answer changed make room for others.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice, repeat

from lfpc.episode import AsyncPolicy, Episode, Game, Policy, episode, play, play_async
from lfpc.errors import LfpcError
from lfpc.images import View, global_view, open_picture
from lfpc.looks import no_look
from lfpc.protocols import ChatProtocol
from lfpc.select.ladder import LevelQuestion, Search, SearchResult

THREADS = 4
"""That decode and resize pictures for a policy of this process."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sample has no result. `counts` says whether it speaks against the whole run: a broken
    picture does not.
    """

    sample_id: str
    why: str
    counts: bool


Outcome = SearchResult | Failure
OnResult = Callable[[Outcome], None]
"""Is told what came of a sample, as soon as it is known. What it raises ends everything."""
KnownAnswers = dict[str, Sequence[str]]
"""Key of a question -> what was said (a text per vote)."""
Keep = Callable[[LevelQuestion, Sequence[str]], None]
"""Is told every answer of the model."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a question is put to the model, and what is known already."""

    protocol: ChatProtocol
    votes: int
    """Answers to each question."""
    known: KnownAnswers
    keep: Keep

    def games(self, question: LevelQuestion) -> list[Game]:
        """The question as `votes` episodes of one reply, about one view."""
        picture = open_picture(question.sample.image)
        view = global_view(picture, question.budget, factor=self.protocol.factor)
        return [self._game(question, view) for _ in range(self.votes)]

    def _game(self, question: LevelQuestion, view: View) -> Game:
        return episode(question.sample, view, look=no_look, protocol=self.protocol, max_turns=1)

    def note(self, question: LevelQuestion, played: Sequence[Episode]) -> Sequence[str]:
        """Keep what was said; a reply that is no answer counts as its own text."""
        said = [
            each.answer if each.answer is not None else each.turns[0].reply.text for each in played
        ]
        self.known[question.key] = said
        self.keep(question, said)
        return said


@dataclass(frozen=True, slots=True)
class Moving:
    """A search and the question it waits for."""

    search: Search
    question: LevelQuestion


def advance(
    search: Search, said: Sequence[str] | None, known: KnownAnswers, sample_id: str
) -> Moving | Outcome:
    """Go on to the next question that is not answered yet. `said` is None at the start."""
    try:
        question = next(search) if said is None else search.send(said)
        while question.key in known:
            question = search.send(known[question.key])
    except StopIteration as end:
        return end.value
    except LfpcError as error:
        return Failure(sample_id, str(error), counts=False)
    return Moving(search, question)


def search_in_batches(
    searches: Iterator[tuple[str, Search]],
    policy: Policy,
    asking: Asking,
    record: OnResult,
    *,
    batch: int,
) -> None:
    """Drive searches, (sample id, search) each, with a policy that answers many questions in one
    go: `batch` at a time, of one level each.

    Lower levels come first, so no more than a batch a level is under way.
    """
    waiting: dict[int, list[Moving]] = {}

    def place(found: Moving | Outcome) -> None:
        if isinstance(found, Moving):
            waiting.setdefault(found.question.level, []).append(found)
        else:
            record(found)

    with ThreadPoolExecutor(THREADS) as threads:
        while True:
            while not any(len(some) >= batch for some in waiting.values()) and (
                new := list(islice(searches, batch))
            ):
                for found in threads.map(
                    lambda pair: advance(pair[1], None, asking.known, pair[0]), new
                ):
                    place(found)
            part = _take(waiting, batch)
            if not part:
                return
            for found in _ask_batch(part, policy, asking, threads):
                place(found)


def _take(waiting: dict[int, list[Moving]], batch: int) -> list[Moving]:
    """A full batch of the lowest level that has one; else what there is, lowest level first."""
    full = max((level for level, some in waiting.items() if len(some) >= batch), default=None)
    levels = sorted(waiting, reverse=True) if full is None else [full]
    part: list[Moving] = []
    for level in levels:
        room = batch - len(part)
        part += waiting[level][:room]
        waiting[level] = waiting[level][room:]
    return part


def _ask_batch(
    part: Sequence[Moving], policy: Policy, asking: Asking, threads: ThreadPoolExecutor
) -> list[Moving | Outcome]:
    """Ask together; what cannot be shown fails alone, and if the policy fails, each is asked
    alone.
    """

    def games(moving: Moving) -> list[Game] | Failure:
        try:
            return asking.games(moving.question)
        except LfpcError as error:
            return _failure(moving, error, counts=False)

    def answer(some: Sequence[Moving], played: Sequence[Episode]) -> Iterator[Moving | Outcome]:
        votes = asking.votes
        said = [
            asking.note(moving.question, played[i * votes : (i + 1) * votes])
            for i, moving in enumerate(some)
        ]
        return threads.map(
            lambda pair: advance(pair[0].search, pair[1], asking.known, _id(pair[0])),
            zip(some, said, strict=True),
        )

    made = list(threads.map(games, part))
    failed = [found for found in made if isinstance(found, Failure)]
    able = [
        moving for moving, found in zip(part, made, strict=True) if not isinstance(found, Failure)
    ]
    try:
        played = play(
            list(chain.from_iterable(found for found in made if not isinstance(found, Failure))),
            policy,
        )
    except Exception as error:
        if len(able) == 1:
            return [*failed, _failure(able[0], error, counts=True)]
        return [
            *failed,
            *chain.from_iterable(_ask_batch([moving], policy, asking, threads) for moving in able),
        ]
    return [*failed, *answer(able, played)]


async def search_concurrently(
    searches: Iterator[tuple[str, Search]], policy: AsyncPolicy, asking: Asking, record: OnResult
) -> None:
    """Drive searches with a served policy: as many samples at once as keep `policy.concurrency`
    requests in flight.
    """

    async def searcher() -> None:
        for sample_id, search in searches:
            found = await asyncio.to_thread(advance, search, None, asking.known, sample_id)
            while isinstance(found, Moving):
                found = await _ask_one(found, policy, asking)
            record(found)

    async with policy:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in repeat(None, max(1, policy.concurrency // asking.votes)):
                    group.create_task(searcher())
        except BaseExceptionGroup as several:  # the first to fail has cancelled the others
            raise several.exceptions[0] from None


async def _ask_one(moving: Moving, policy: AsyncPolicy, asking: Asking) -> Moving | Outcome:
    try:
        games = await asyncio.to_thread(asking.games, moving.question)
    except LfpcError as error:
        return _failure(moving, error, counts=False)
    try:
        played = await asyncio.gather(*(play_async(game, policy) for game in games))
    except Exception as error:
        return _failure(moving, error, counts=True)
    said = asking.note(moving.question, played)
    return await asyncio.to_thread(advance, moving.search, said, asking.known, _id(moving))


def _id(moving: Moving) -> str:
    return moving.question.sample.id


def _failure(moving: Moving, error: Exception, *, counts: bool) -> Failure:
    return Failure(
        _id(moving),
        str(error) if isinstance(error, LfpcError) else f"{type(error).__name__}: {error}",
        counts,
    )
