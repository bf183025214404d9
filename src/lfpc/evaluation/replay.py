"""What a run recorded, played again: its questions, and its replies up to the first crop.

A replayed probe gives the recorded replies up to and including the first call again, word for word;
the look shows something else for the crop, and the policy continues from there. So every difference
to the recorded run comes from what was shown, and a question costs only what comes after the crop.
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
    """The recorded turns up to and including the first call; empty where there is none, or nothing
    was said after it.
    """
    calls = [n for n, turn in enumerate(record.turns, 1) if isinstance(turn.action, Crop)]
    return record.turns[: calls[0]] if calls and calls[0] < len(record.turns) else ()


def needs_no_replay(record: EpisodeRecord) -> bool:
    """Whether the recorded episode holds for every probe as it is. A failed question does not."""
    return not record.failed and not prefix(record)


def taken_over(own: Records) -> list[EpisodeRecord]:
    """Records of a replay that need not be asked for: those of `own` without a crop to replace."""
    return [
        replace(record, replayed=len(record.turns)) for record in own if needs_no_replay(record)
    ]


def prefixes(own: Records) -> Mapping[str, Turns]:
    """The recorded turns to be given again, by sample id."""
    return {
        record.sample.id: turns for record in own if not record.failed and (turns := prefix(record))
    }


def replayed(game: Game, replies: Sequence[Reply]) -> Game:
    """`game`, in which `replies` are given first; the policy is asked from then on.

    Raises:
        RunError: the replies end the episode, so they are not what `prefix` gives.
    """
    context = next(game)
    try:
        for reply in replies:
            context = game.send(reply)
    except StopIteration:
        raise RunError(
            "the recorded replies end the episode where they once went on; was the run made "
            "with other settings?"
        ) from None
    try:
        while True:
            context = game.send((yield context))
    except StopIteration as end:
        return end.value


def replies_of(turns: Turns) -> list[Reply]:
    """What the policy wrote in recorded turns."""
    return [Reply(turn.text) for turn in turns]


def with_counts(record: EpisodeRecord, turns: Turns) -> EpisodeRecord:
    """`record` of an episode that began with the recorded `turns`: their token counts are kept, and
    `replayed` says how many there are.
    """
    counted = [
        replace(turn, tokens=was.tokens, prompt_tokens=was.prompt_tokens, finish=was.finish)
        for turn, was in zip(record.turns, turns, strict=False)
    ]
    return replace(record, turns=(*counted, *record.turns[len(turns) :]), replayed=len(turns))
