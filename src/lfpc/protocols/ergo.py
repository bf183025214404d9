"""ERGO: two fixed turns. The first names a region in pixels of the shown picture, the second
answers.

The published script hides the options in the first turn and shows the whole picture for a region
that is not four whole numbers, as `as_released` does.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

from lfpc.boxes import Box, Size
from lfpc.dialogue import Action, Answer, Malformed, Reason
from lfpc.images import CropRules, View, resized_size
from lfpc.protocols.base import ChatProtocol, MessagePart, Released
from lfpc.protocols.exact import in_order, is_alone, is_exact
from lfpc.protocols.reading import (
    ANSWER,
    ask,
    call_or_answer,
    crop_of,
    four_numbers,
    malformed,
    said,
)
from lfpc.protocols.released import attempt, filled, pil_corners, tool_crop, tool_size, whole_text

ZOOM = re.compile(r"<zoom>(.*?)(?:</zoom>|\Z)", re.DOTALL)
_WHOLE_NUMBERS = re.compile(r"\[(\d+),\s*(\d+),\s*(\d+),\s*(\d+)\]")
CROP = CropRules(min_tokens=4, max_tokens=1280)
RELEASED_CROP = CropRules(min_tokens=4, max_tokens=16384)
"""The processor's; the script keeps to `CROP` itself, except for the whole picture."""
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
            said(answered.group(1), exact=is_alone(answered, ZOOM))
            if answered
            else malformed(Reason.NO_ACTION, "There is no answer.")
        )
    action = call_or_answer(text, ZOOM, lambda body: _read_zoom(body, views))
    return replace(action, detail=action.detail + LAST) if isinstance(action, Malformed) else action


def parse_as_released(text: str, views: Sequence[View]) -> Action:
    """Parse a reply as the published script. The first always gets a picture: the region of the
    first closed zoom if that holds one list of whole numbers without signs, else the whole picture.
    After it the reply is the answer, or what it has between answer tags.
    """
    if len(views) > 1:
        stated = text.partition("<answer>")[2].partition("</answer>")[0].strip()
        return Answer(stated) if stated else whole_text(text)
    return attempt(
        lambda: _executed(_released_numbers(text), views[0]),
        lambda error: f"{type(error).__name__}: {error}{LAST}",
    )


def write_call(box: Box, first_view: View) -> str:
    """A zoom on `box`, in whole pixels of the first view."""
    return f"<zoom>{list(box.to_pixels(first_view.size))}</zoom>"


def _released_numbers(text: str) -> tuple[int, ...] | None:
    zoom, closed, _ = text.partition("<zoom>")[2].partition("</zoom>")
    lists = _WHOLE_NUMBERS.findall(zoom) if closed else []
    try:
        return tuple(int(number) for number in lists[0]) if len(lists) == 1 else None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        return None


def _executed(numbers: tuple[int, ...] | None, view: View) -> Action:
    size = view.original_size
    if numbers is None:
        return tool_crop((0, 0, *size), view, size)
    scales = size[0] / view.size[0], size[1] / view.size[1]
    x1, y1, x2, y2 = (
        int(max(0, min(number * scales[i % 2], size[i % 2]))) for i, number in enumerate(numbers)
    )
    sides = _released_size((x2 - x1, y2 - y1))
    cut = filled(pil_corners((x1, y1, x2, y2)))
    tool_size(sides, RELEASED_CROP)
    return tool_crop(cut, view, size, sides=sides, emitted=numbers)


def _released_size(size: Size) -> Size:
    """The size of the script's crop, which above the maximum is rounded and may exceed it."""
    most = CROP.max_tokens * CROP.factor**2
    resized = resized_size(size, min_tokens=CROP.min_tokens, max_tokens=RELEASED_CROP.max_tokens)
    if resized[0] * resized[1] <= most:
        return resized
    beta = sqrt(size[0] * size[1] / most)
    width, height = (max(round(side / beta / CROP.factor), 1) * CROP.factor for side in size)
    return width, height


def _read_zoom(body: str, views: Sequence[View]) -> Action:
    lists = _LIST.findall(body)
    if len(lists) != 1:
        return malformed(
            Reason.BAD_BOX,
            f"Between the zoom tags there must be one list [x1, y1, x2, y2]; there are "
            f"{len(lists)}.",
        )
    return crop_of(four_numbers(lists[0]), views[0].size, views, exact=is_exact(body, in_order))


ERGO = ChatProtocol(
    name="ergo",
    system=SYSTEM,
    direct_system=DIRECT_SYSTEM,
    parser=parse,
    ask=ask,
    remind=lambda first_view: FIRST,
    write_call=write_call,
    thinks=True,
    observe=observe,
    observe_nothing="There is no region to see. Write <answer>your answer</answer>",
    stop=("</zoom>", "</answer>"),
    crop=CROP,
    turns=2,
    as_released=Released(
        parser=parse_as_released,
        crop=RELEASED_CROP,
        stop=(),
        ask_first=lambda question, options: question,
    ),
)
