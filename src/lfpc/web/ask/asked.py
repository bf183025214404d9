"""Questions that the demo page asked, kept so that a crop can be swapped, and the events a page is
told while one is answered.
"""

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
"""Questions that are remembered."""


@dataclass(slots=True)
class AskedEpisode:
    """A question and its turns so far."""

    asked: LiveQuestion
    turns: tuple[Turn, ...] = ()
    """Without their views, which would fill the memory, and are made again for a swap."""


class Questions:
    """The last questions by id. An id cannot be guessed, so a page swaps crops of its own questions
    only.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, AskedEpisode] = OrderedDict()

    def add(self, asked: LiveQuestion) -> tuple[str, AskedEpisode]:
        """Remember a question; returns its id and where its turns go."""
        name = uuid.uuid4().hex
        played = AskedEpisode(asked)
        self._kept[name] = played
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return name, played

    def find(self, name: str) -> AskedEpisode | None:
        """The question of that id; None if there is none (any more)."""
        return self._kept.get(name)


async def events(
    model: LiveModel, name: str, played: AskedEpisode, views: FileStore
) -> AsyncGenerator[dict[str, Any], None]:
    """What a page is told: "first", then a "turn" each, then "end".

    Args:
        model: who answers.
        name: the question's id.
        played: the question; its turns are kept here as they come.
        views: where pictures that the page shows are kept; events name them by their address.
    """
    asked = played.asked
    began = time.perf_counter()
    told = -1
    factor = asked.config.chat.factor
    async with aclosing(model.tell(asked)) as steps:
        async for step in steps:
            if told < 0:
                told = 0
                swaps = [swap for swap in SWAPS if swap != "truth" or asked.sample.boxes]
                view = await asyncio.to_thread(saved, step.first_view, views, factor)
                yield {"kind": "first", "id": name, "swaps": swaps, "view": view}
            while told < len(step.turns):
                told += 1
                yield await asyncio.to_thread(turn_event, step.turns[:told], asked, views)
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
    """The last of `turns` as the page shows it; its view is kept in `views`."""
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
    """A view as the page shows it: its address, its pixels and its tokens."""
    width, height = view.size
    src = f"/views/{views.put(png_bytes(view), '.png')}"
    return {
        "src": src,
        "width": width,
        "height": height,
        "tokens": visual_tokens(view.size, factor),
    }
