"""What a run recorded, played again: its questions, and its replies up to the first crop.

A replayed probe gives the recorded replies up to and including the first call again, word for word;
the look shows something else for the crop, and the policy goes on from there. So every difference
to the recorded run comes from what was shown, and a question costs only what comes after the crop.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfpc.boxes import Box
from lfpc.dialogue import Reply
from lfpc.episode import Game
from lfpc.errors import RunError
from lfpc.metrics.episodes import Row
from lfpc.samples import Sample
from lfpc.storage.runs import RunFolder

COUNTS = ("tokens", "prompt_tokens", "finish")
"""What is known of a turn only where its reply was made."""


def samples_of_rows(rows: Sequence[Row]) -> list[Sample]:
    """The questions that evaluation rows are about, in their order; "budget" is the row's.

    Raises:
        RunError: a row is not one that an evaluation writes.
    """
    try:
        return [_sample_of_row(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the run's episodes are not those of an evaluation ({type(error).__name__}: "
            f"{error}); evaluate again"
        ) from error


def _sample_of_row(row: Row) -> Sample:
    return Sample(
        id=row["sample"],
        image=Path(row["image"]),
        question=row["question"],
        answer=row["answer"],
        options=tuple(row.get("options", ())),
        boxes=tuple(tuple(Box(*corners) for corners in nested) for nested in row["boxes"]),
        budget=row.get("budget"),
        category=row.get("category", ""),
        meta=row.get("meta") or {},
    )


def prefix(row: Row) -> list[Row]:
    """The recorded turns up to and including the first call; empty where there is none, or nothing
    was said after it.
    """
    turns = row["turns"]
    calls = [n for n, turn in enumerate(turns, 1) if turn["action"]["kind"] == "crop"]
    return list(turns[: calls[0]]) if calls and calls[0] < len(turns) else []


def settled(row: Row) -> bool:
    """Whether a replay has nothing to ask: the recorded episode holds for every probe as it is. A
    failed question is not settled.
    """
    return "error" not in row and not prefix(row)


def begin_replay(
    run: RunFolder, own: Sequence[Row], extra: Mapping[str, Any]
) -> dict[str, list[Row]]:
    """Write into `run` what a replay of `own` need not ask for; recorded turns of the other
    questions by sample id.
    """
    there = run.episodes()
    for row in own:
        if settled(row) and row["sample"] not in there:
            run.log_episode(row["sample"], {**row, **extra, "replayed": len(row["turns"])})
    return {row["sample"]: turns for row in own if "error" not in row and (turns := prefix(row))}


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
            "the recorded replies end the episode where they once went on; was the run "
            "made with other settings?"
        ) from None
    try:
        while True:
            context = game.send((yield context))
    except StopIteration as end:
        return end.value


def replies_of(turns: Sequence[Row]) -> list[Reply]:
    """What the policy wrote in recorded turns: the text, and the tokens where the run kept them."""
    return [Reply(turn["text"], tuple(turn.get("token_ids", ()))) for turn in turns]


def with_counts(row: dict[str, Any], turns: Sequence[Row]) -> dict[str, Any]:
    """`row` of an episode that began with the recorded `turns`: their token counts are kept,
    "replayed" says how many there are.
    """
    counted = [
        {**turn, **{key: was[key] for key in COUNTS if key in was}}
        for turn, was in zip(row["turns"], turns, strict=False)
    ]
    return {**row, "turns": counted + row["turns"][len(turns) :], "replayed": len(turns)}
