"""Episodes as JSON rows: what an episode leaves behind on disk."""

import dataclasses
from typing import Any

from lfpc.answers import check_answer
from lfpc.dialogue import Action, Answer, Crop, Malformed, Turn
from lfpc.episode import Episode
from lfpc.rewards import RewardTerms


def episode_row(episode: Episode, terms: RewardTerms | None = None, **extra: Any) -> dict[str, Any]:
    """An episode as JSON: everything a page, a rescoring or a probe's comparison needs, except
    pixels.

    Sizes are [width, height] in pixels, boxes [x0, y0, x1, y1] in fractions. Of a crop, `emitted`
    is what the policy wrote (in its protocol's frame of the picture `source`) and `box` the region
    of the original that means; the turn's `region` is what was shown, and its `cut` the pixels of
    the original that were really cut. `extra` is added as it is.
    """
    sample = episode.sample
    verdict = check_answer(episode.answer, episode.sample)
    row: dict[str, Any] = {
        "sample": sample.id,
        "question": sample.question,
        "options": list(sample.options),
        "answer": sample.answer,
        "image": str(sample.image),
        "category": sample.category,
        "meta": dict(sample.meta),
        "boxes": [[list(box.corners) for box in nested] for nested in sample.boxes],
        "first_view": list(episode.first_view.size),
        "turns": [turn_row(turn) for turn in episode.turns],
        "stop": episode.stop.value,
        "said": episode.answer,
        "correct": verdict.correct,
        "method": verdict.method,
    }
    if terms is not None:
        row["reward"] = {**dataclasses.asdict(terms), "total": terms.total}
    return {**row, **extra}


def turn_row(turn: Turn) -> dict[str, Any]:
    """A turn as `episode_row` has it."""
    reply = turn.reply
    row: dict[str, Any] = {
        "text": reply.text,
        "action": _action_row(turn.action),
        "view": None if turn.view is None else list(turn.view.size),
        "region": None if turn.view is None else list(turn.view.region.corners),
        "cut": None if turn.view is None or turn.view.cut is None else list(turn.view.cut),
        "tokens": reply.usage.reply_tokens if reply.usage else len(reply.token_ids),
    }
    if reply.usage:
        row["prompt_tokens"] = reply.usage.prompt_tokens
    if reply.finish:
        row["finish"] = reply.finish
    return row


def _action_row(action: Action) -> dict[str, Any]:
    match action:
        case Crop():
            return {
                "kind": "crop",
                "box": list(action.box.corners),
                "emitted": list(action.emitted),
                "source": action.source,
            }
        case Answer(text):
            return {"kind": "answer", "text": text}
        case Malformed(reason, detail):
            return {"kind": "malformed", "reason": reason, "detail": detail}
