"""Chain-of-Focus: DeepEyes' call; boxes in pixels of the first picture, shown 1.5 times as wide and
as high.

The published V* script cuts its crop from the first picture and doubles it, and shows the whole
picture for a call that it cannot use; `as_released` does so too.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lfpc.dialogue import Action, Answer, Malformed
from lfpc.images import MAX_ASPECT, CropRules, View
from lfpc.protocols.base import ChatProtocol, MessagePart, Released
from lfpc.protocols.deepeyes import (
    DIRECT_SYSTEM,
    FORM,
    SYSTEM,
    TOOL,
    TOOL_END,
    TOOL_START,
    write_call,
)
from lfpc.protocols.exact import is_exact
from lfpc.protocols.reading import (
    TOOL_CALL,
    ask,
    call_or_answer,
    crop_of,
    four_numbers,
    tool_arguments,
)
from lfpc.protocols.released import FAILURES, filled, tool_crop, tool_size

CROP = CropRules(min_tokens=16, max_tokens=16384)
WIDENED = 1.5
"""Width of the shown region in widths of the box, and its height likewise."""
ENLARGED = 2
"""Pixels of the script's crop for one of the first picture, across and down."""

REMINDER = (
    "\nThink first, then either call tools or answer. Write <think>...</think>, then "
    "<tool_call>...</tool_call> for each call, or <answer>...</answer> for the answer."
)


def ask_as_question(question: str, options: Sequence[str]) -> str:
    """The question after the word "Question"."""
    return f"Question: {ask(question, options)}"


def observe(view: View, number: int, asked: str) -> tuple[MessagePart, ...]:
    """A crop and the reminder."""
    return (view, REMINDER)


def parse(text: str, views: Sequence[View]) -> Action:
    """Parse a reply: the first call or answer counts; a box is in pixels of the first view."""
    return call_or_answer(text, TOOL_CALL, lambda body: _read_call(body, views))


def parse_as_released(text: str, views: Sequence[View]) -> Action:
    """Parse a reply as the published V* script: one with a call always gets a picture, else what
    stands between answer tags in one line is the answer.
    """
    if TOOL_START not in text:
        return Answer(_stated(text))
    first = views[0]
    try:
        box = _valid_box(text, first)
        cut = (0, 0, *first.size) if box is None else _widened(box, first)
        sides = ENLARGED * (cut[2] - cut[0]), ENLARGED * (cut[3] - cut[1])
        if max(sides) > MAX_ASPECT * min(sides):
            raise ValueError("the crop is too narrow")
        tool_size(sides, CROP)
        return tool_crop(
            filled(cut), first, first.size, requested=box, sides=sides, emitted=box or ()
        )
    except FAILURES:
        return tool_crop((0, 0, *first.size), first, first.size)


def _stated(text: str) -> str:
    """The first text between answer tags that holds no line break; empty without one."""
    start = text.find("<answer>")
    while start >= 0:
        start += len("<answer>")
        end = text.find("</answer>", start)
        if end < 0:
            break
        if "\n" not in (stated := text[start:end].strip()):
            return stated
        start = text.find("<answer>", start)
    return ""


def _valid_box(text: str, first: View) -> tuple[float, float, float, float] | None:
    """The box of the first closed call; None if it is no JSON, or no box inside the picture.

    Raises:
        FAILURES: the call has another shape.
    """
    body, closed, _ = text.partition(TOOL_START)[2].partition(TOOL_END)
    try:
        call: Any = json.loads(body.strip()) if closed else None
    except json.JSONDecodeError:
        return None
    if not closed:
        return None
    x0, y0, x1, y1 = call["arguments"]["bbox_2d"]
    if not all(isinstance(one, int | float) for one in (x0, y0, x1, y1)):
        return None
    width, height = first.size
    inside = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    return (x0, y0, x1, y1) if inside else None


def _widened(box: tuple[float, float, float, float], first: View) -> tuple[int, int, int, int]:
    """Whole pixels of the first view that the script cuts for `box`: rounded towards zero."""
    x0, y0, x1, y1 = box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    across, down = (x1 - x0) * WIDENED / 2, (y1 - y0) * WIDENED / 2
    width, height = first.size
    return (
        int(max(0, x - across)),
        int(max(0, y - down)),
        int(min(width, x + across)),
        int(min(height, y + down)),
    )


def _read_call(body: str, views: Sequence[View]) -> Action:
    arguments = tool_arguments(body, TOOL)
    if isinstance(arguments, Malformed):
        return arguments
    numbers = four_numbers(arguments.get("bbox_2d"))
    exact = is_exact(body, FORM)
    crop = crop_of(numbers, views[0].size, views, exact=exact)
    if isinstance(crop, Malformed):
        return crop
    return replace(crop, wider=crop.box.grown((WIDENED - 1) / 2))


CHAIN_OF_FOCUS = ChatProtocol(
    name="chain_of_focus",
    system=SYSTEM,
    direct_system=DIRECT_SYSTEM,
    parser=parse,
    ask=ask_as_question,
    remind=lambda first_view: REMINDER,
    write_call=write_call,
    observe=observe,
    observe_nothing=f"No picture.{REMINDER}",
    stop=("</tool_call>", "</answer>"),
    crop=CROP,
    as_released=Released(parser=parse_as_released, stop=()),
)
