"""Asks a level's question, and stores the answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from lfpc.episode import Episode, Game, episode
from lfpc.evaluation.opened import first_view
from lfpc.looks import no_look
from lfpc.playing.driver import Item, Question
from lfpc.protocols import ChatProtocol
from lfpc.samples import Sample
from lfpc.selection.config import SelectConfig
from lfpc.selection.ladder import (
    RULES,
    AnswerRules,
    LevelQuestion,
    SearchResult,
    level_budgets,
    search,
)

Row = Mapping[str, Any]
"""The answers to a question as they are stored: its sample, budget and answers (a text per vote).
"""


class Asking:
    """Searches samples, and asks the questions whose answers are not stored yet.

    Args:
        rows: the stored answers, each with its "key".
        protocol: the model family's protocol.
        config: ladder and options.
        store: stores new answers under a key.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        protocol: ChatProtocol,
        config: SelectConfig,
        store: Callable[[str, Row], None],
    ) -> None:
        self.known: dict[str, Sequence[str]] = {}
        """Key of a question -> answers (a text per vote)."""
        self.truncated: set[str] = set()
        """Ids of the samples with a reply that the token limit ended."""
        self._cut: set[str] = set()
        self._protocol = protocol
        self._config = config
        self._budgets = level_budgets(config, protocol.factor)
        self._store = store
        for row in rows:
            self._add(row["key"], row)

    def search(self, sample: Sample, rules: AnswerRules = RULES) -> Item[SearchResult]:
        """The search of one sample; see `lfpc.selection.ladder.search`."""
        return search(
            sample,
            self._budgets,
            self._protocol,
            rules,
            self._ask,
            stop_early=not self._config.every_level,
        )

    def keep(self, key: str, row: Row) -> None:
        """Store answers."""
        self._store(key, row)
        self._add(key, row)

    def _add(self, key: str, row: Row) -> None:
        self.known[key] = tuple(row["said"])
        if row.get("truncated"):
            self._cut.add(key)

    def _ask(self, question: LevelQuestion) -> Item[Sequence[str]]:
        """The answers to the question, which is played unless they are stored."""
        if question.key not in self.known:
            yield Question(
                partial(self._games, question), question.level, partial(self._keep, question)
            )
        if question.key in self._cut:
            self.truncated.add(question.sample.id)
        return self.known[question.key]

    def _games(self, question: LevelQuestion) -> list[Game]:
        """The question as `votes` episodes of one reply about one view."""
        sample = question.sample
        protocol = self._protocol
        view = first_view(sample, question.budget, factor=protocol.factor)
        return [
            episode(sample, view, look=no_look, protocol=protocol, max_turns=1, draw=draw)
            for draw in range(self._config.votes)
        ]

    def _keep(self, question: LevelQuestion, played: Sequence[Episode]) -> None:
        """Store the answers; a malformed reply counts as its own text."""
        said = [
            each.answer if each.answer is not None else each.turns[0].reply.text for each in played
        ]
        row = {"sample": question.sample.id, "budget": question.budget, "said": said}
        if cut := sum(turn.reply.truncated for each in played for turn in each.turns):
            row["truncated"] = cut
        self.keep(question.key, row)
