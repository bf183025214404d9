"""Asks a level's question, and stores the answers."""

from collections.abc import Sequence
from functools import partial

from lfpc.episode import Episode, Game, episode
from lfpc.images import global_view, open_picture
from lfpc.looks import no_look
from lfpc.playing.driver import Item, Question
from lfpc.protocols import ChatProtocol
from lfpc.selection.ladder import LevelQuestion
from lfpc.storage.journal import Journal


class Asking:
    """Asks questions whose answers are not stored yet.

    Args:
        journal: the stored answers.
        protocol: the model family's protocol.
        votes: answers per question.
    """

    def __init__(self, journal: Journal, protocol: ChatProtocol, votes: int) -> None:
        self.known: dict[str, Sequence[str]] = {
            row["key"]: tuple(row["said"]) for row in journal.rows()
        }
        """Key of a question -> answers (a text per vote)."""
        self.truncated: set[str] = set()
        """Ids of the samples with a reply that the token limit ended."""
        self._cut = {row["key"] for row in journal.rows() if row.get("truncated")}
        self._journal = journal
        self._protocol = protocol
        self._votes = votes

    def ask(self, question: LevelQuestion) -> Item[Sequence[str]]:
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
        view = global_view(open_picture(sample.image), question.budget, factor=protocol.factor)
        return [
            episode(sample, view, look=no_look, protocol=protocol, max_turns=1, draw=draw)
            for draw in range(self._votes)
        ]

    def _keep(self, question: LevelQuestion, played: Sequence[Episode]) -> None:
        """Store the answers; a malformed reply counts as its own text."""
        said = [
            each.answer if each.answer is not None else each.turns[0].reply.text for each in played
        ]
        row = {"sample": question.sample.id, "budget": question.budget, "said": said}
        if cut := sum(turn.reply.truncated for each in played for turn in each.turns):
            self._cut.add(question.key)
            row["truncated"] = cut
        self.known[question.key] = said
        self._journal.append(question.key, row)
