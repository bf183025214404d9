"""Replay of a recorded run: its questions, with its replies up to the first crop.

A replayed probe repeats the recorded replies up to and including the first call. The look shows
something else for the crop, and the policy continues from there. Every difference to the recorded
run therefore comes from the crop, and a question costs only the turns after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lfpc.dialogue import Crop, Reply
from lfpc.episode import Game
from lfpc.errors import RunError
from lfpc.metrics.summary import Records
from lfpc.records import EpisodeRecord, TurnRecord

Turns = Sequence[TurnRecord]


def prefix(record: EpisodeRecord) -> Turns:
    """The recorded turns up to and including the first call; empty without a call, or without a
    reply after it.
    """
    calls = [n for n, turn in enumerate(record.turns[:-1], 1) if isinstance(turn.action, Crop)]
    return record.turns[: calls[0]] if calls else ()


def needs_no_replay(record: EpisodeRecord) -> bool:
    """Whether the recorded episode is valid under every probe, unchanged. A failed question is
    not.
    """
    return not record.failed and not prefix(record)


def taken_over(own: Records) -> list[EpisodeRecord]:
    """Records of `own` that a replay copies: those without a crop to replace."""
    return [
        replace(record, replayed=len(record.turns)) for record in own if needs_no_replay(record)
    ]


def prefixes(own: Records) -> Mapping[str, Turns]:
    """The recorded turns to replay, by sample id."""
    return {
        record.sample.id: turns for record in own if not record.failed and (turns := prefix(record))
    }


def replayed(game: Game, replies: Sequence[Reply]) -> Game:
    """`game` with `replies` as its first replies; the policy gives the rest.

    Raises:
        RunError: the replies end the episode, which those of `prefix` never do.
    """
    context = next(game)
    try:
        for reply in replies:
            context = game.send(reply)
    except StopIteration:
        raise RunError(
            "the recorded replies end the episode before the next recorded turn; was the run made "
            "with other settings?"
        ) from None
    try:
        while True:
            context = game.send((yield context))
    except StopIteration as end:
        return end.value


def replies_of(turns: Turns) -> list[Reply]:
    """The replies of recorded turns."""
    return [Reply(turn.text, finish=turn.finish) for turn in turns]


def with_counts(record: EpisodeRecord, turns: Turns) -> EpisodeRecord:
    """`record` of an episode that replayed `turns`, with their token counts, and their number in
    `replayed`.
    """
    counted = [
        replace(turn, tokens=was.tokens, prompt_tokens=was.prompt_tokens)
        for turn, was in zip(record.turns, turns, strict=False)
    ]
    return replace(record, turns=(*counted, *record.turns[len(turns) :]), replayed=len(turns))
