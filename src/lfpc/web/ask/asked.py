"""Questions of the demo page, stored for swaps of crops, and events about their episodes."""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from lfpc.ask.live import SWAPS, LiveModel, LiveQuestion
from lfpc.boxes import Box
from lfpc.dialogue import Crop, Turn
from lfpc.episode import Episode
from lfpc.images import View, png_bytes, visual_tokens
from lfpc.records import turn_record, turn_to_json
from lfpc.report.cards import LONGEST_TEXT
from lfpc.web.ask.store import FileStore

MOST_KEPT = 500
"""Maximum number of stored questions."""


@dataclass(slots=True)
class AskedEpisode:
    """A question and its turns so far."""

    asked: LiveQuestion
    turns: tuple[Turn, ...] = ()
    """Turns without views, which would fill the memory; a swap makes them again."""


class Questions:
    """The last questions by id. Ids cannot be guessed, so a page can swap crops of its own
    questions only.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, AskedEpisode] = OrderedDict()

    def add(self, asked: LiveQuestion) -> tuple[str, AskedEpisode]:
        """Store a question; returns its id, and the object that receives its turns."""
        name = uuid.uuid4().hex
        played = AskedEpisode(asked)
        self._kept[name] = played
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return name, played

    def find(self, name: str) -> AskedEpisode | None:
        """The question of that id; None if unknown or dropped."""
        return self._kept.get(name)


async def events(
    model: LiveModel, name: str, played: AskedEpisode, views: FileStore
) -> AsyncGenerator[dict[str, Any], None]:
    """Events of an episode for the page: "first", then each "turn", then "end".

    Args:
        model: the model.
        name: the question's id.
        played: the question, which receives its turns.
        views: store of the shown pictures, which events name by address.
    """
    asked = played.asked
    began = time.perf_counter()
    sent = -1
    factor = asked.config.chat.factor
    async with aclosing(model.steps(asked)) as steps:
        async for step in steps:
            if sent < 0:
                sent = 0
                swaps = [swap for swap in SWAPS if swap != "truth" or asked.sample.boxes]
                view = await asyncio.to_thread(saved, step.first_view, views, factor)
                yield {"kind": "first", "id": name, "swaps": swaps, "view": view}
            while sent < len(step.turns):
                sent += 1
                yield await asyncio.to_thread(turn_event, step.turns[:sent], asked, views)
            played.turns = tuple(replace(turn, view=None) for turn in step.turns)
            if isinstance(step, Episode):
                yield {
                    "kind": "end",
                    "answer": step.answer,
                    "turns": len(step.turns),
                    "visual_tokens": sum(visual_tokens(view.size, factor) for view in step.views),
                    "seconds": round(time.perf_counter() - began, 3),
                }


def turn_event(turns: Sequence[Turn], asked: LiveQuestion, views: FileStore) -> dict[str, Any]:
    """The event of the last of `turns`; its view is stored in `views`."""
    turn = turns[-1]
    call = sum(isinstance(one.action, Crop) for one in turns)
    row = turn_to_json(turn_record(turn))
    event: dict[str, Any] = {
        "kind": "turn",
        "number": len(turns),
        "text": row["text"][:LONGEST_TEXT],
        "left_out": max(0, len(row["text"]) - LONGEST_TEXT),
        "action": row["action"],
        "replayed": len(turns) <= len(asked.before),
        "region": row["region"],
        "view": turn.view and saved(turn.view, views, asked.config.chat.factor),
    }
    if isinstance(turn.action, Crop):
        what = asked.shown.get(call, "own")
        event |= {
            "call": call,
            "last": len(turns) >= asked.most_turns,
            "shown": "box" if isinstance(what, Box) else what,
        }
    return event


def saved(view: View, views: FileStore, factor: int) -> dict[str, Any]:
    """A stored view for the page: address, pixels, visual tokens."""
    width, height = view.size
    src = f"/views/{views.put(png_bytes(view), '.png')}"
    return {
        "src": src,
        "width": width,
        "height": height,
        "tokens": visual_tokens(view.size, factor),
    }
