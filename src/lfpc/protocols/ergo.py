"""ERGO: two fixed turns. The first names a region in pixels of the shown picture, the second
answers.

The published script shows the whole picture for an unreadable region, as `as_released` does.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Action, Crop, Malformed, Reason
from lfpc.images import CropRules, View
from lfpc.protocols.base import ChatProtocol, MessagePart, Released
from lfpc.protocols.reading import (
    ANSWER,
    ask,
    call_or_answer,
    crop_of,
    four_numbers,
    malformed,
    said,
)

ZOOM = re.compile(r"<zoom>(.*?)(?:</zoom>|\Z)", re.DOTALL)
_LIST = re.compile(r"\[[^\[\]]{1,200}\]")

SYSTEM = (
    "You answer a question about a picture in two steps. First name the region that the "
    "question is about, as [x1, y1, x2, y2] in pixels "
    "of the picture you see, and stop. You are then shown that region of the original, "
    "enlarged, and give the final answer."
)
DIRECT_SYSTEM = "You answer questions about a picture. Write <answer>your answer</answer>"
FIRST = (
    " First consider which region holds all that is needed for the answer. Think between "
    "<think> and </think>, then write the region as "
    "<zoom>[x1, y1, x2, y2]</zoom>"
)
LAST = " No region is shown: write <answer>your answer</answer>"
SECOND = (
    "\nLook at the whole picture and at the region. Think between <think> and </think>, then "
    "write <answer>your answer</answer>"
)


def observe(view: View, number: int, asked: str) -> tuple[MessagePart, ...]:
    """The region, then the question again."""
    return (view, asked + SECOND)


def parse(text: str, views: Sequence[View]) -> Action:
    """Parse a reply: the first zoom or answer counts, after a shown region only an answer."""
    if len(views) > 1:
        answered = ANSWER.search(text)
        return (
            said(answered.group(1))
            if answered
            else malformed(Reason.NO_ACTION, "There is no answer.")
        )
    action = call_or_answer(text, ZOOM, lambda body: _read_zoom(body, views))
    return replace(action, detail=action.detail + LAST) if isinstance(action, Malformed) else action


def parse_as_released(text: str, views: Sequence[View]) -> Action:
    """As `parse`, but a first reply without a valid region or an answer gets the whole picture."""
    action = parse(text, views)
    return Crop(WHOLE) if isinstance(action, Malformed) and len(views) == 1 else action


def write_call(box: Box, first_view: View) -> str:
    """A zoom on `box`, in whole pixels of the first view."""
    return f"<zoom>{list(box.to_pixels(first_view.size))}</zoom>"


def _read_zoom(body: str, views: Sequence[View]) -> Action:
    lists = _LIST.findall(body)
    if len(lists) != 1:
        return malformed(
            Reason.BAD_BOX,
            f"Between the zoom tags there must be one list [x1, y1, x2, y2]; there are "
            f"{len(lists)}.",
        )
    return crop_of(four_numbers(lists[0]), views[0].size, views)


ERGO = ChatProtocol(
    name="ergo",
    system=SYSTEM,
    direct_system=DIRECT_SYSTEM,
    parser=parse,
    ask=ask,
    remind=lambda first_view: FIRST,
    write_call=write_call,
    observe=observe,
    observe_nothing="There is no region to see. Write <answer>your answer</answer>",
    stop=("</zoom>", "</answer>"),
    crop=CropRules(min_tokens=4, max_tokens=1280),
    turns=2,
    as_released=Released(parser=parse_as_released),
)
