r"""Pixel-Reasoner: boxes in fractions or pixels of any picture shown so far, numbered from 1; the
answer in \boxed{}.

The shown region is wider than the box, by a tenth of the target picture on every side. The
published script reads a box as pixels of the shown target as soon as one number is 1 or more, adds
the tenth without a maximum, and acts only on a call that ends the reply; `as_released` does so too.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lfpc.boxes import Box
from lfpc.dialogue import Action, Answer, Malformed, Reason
from lfpc.errors import BoxError
from lfpc.images import CropRules, View
from lfpc.protocols.base import ChatProtocol, MessagePart, Released
from lfpc.protocols.exact import exact_if, hermes_form, in_order, is_alone, is_exact, is_number
from lfpc.protocols.reading import (
    BAD_BOX,
    TOOL_CALL,
    ask,
    boxed_answer,
    check_shape,
    crop_of,
    four_numbers,
    hermes_call,
    inline_call_text,
    is_only_boxed,
    malformed,
    said,
    tool_arguments,
    whole_number,
)
from lfpc.protocols.released import attempt, pil_corners, tool_crop, whole_text

TOOL = "crop_image_normalized"
SIDES_ABOVE = 28
"""Minimum side of the shown region in pixels of the original (exclusive)."""
TOOL_START = "<tool_call>"
TOOL_END = "</tool_call>"
PADDING = 0.1
MOST_PADDING = 600
"""Padding on every side as share of the target picture, and its maximum in pixels of the
original."""

SYSTEM = (
    "You answer questions about a picture.\n\n# Tool\n"
    f"{TOOL} shows a region of a picture. bbox_2d is [x1, y1, x2, y2] in fractions of its "
    f"width and height, from 0.0 to 1.0; target_image "
    "is the number of the picture, 1 for the original, 2 for the first region you were "
    "shown.\nTo call it, write "
    f'<tool_call>{{"name": "{TOOL}", "arguments": {{"bbox_2d": [x1, y1, x2, y2], '
    f'"target_image": 1}}}}</tool_call>'
)
DIRECT_SYSTEM = "You answer questions about a picture."
FINAL = "Think step by step, and put your final answer within \\boxed{}."


def observe(view: View, number: int, asked: str) -> tuple[MessagePart, ...]:
    """A crop with its number and size."""
    return (
        f"This is the region (picture {number + 1}, {view.size[0]} x {view.size[1]} pixels):",
        view,
    )


def ask_for_box(question: str, options: Sequence[str]) -> str:
    """The question with the form of the answer."""
    return f"{ask(question, options)}\n\n{FINAL}"


def parse(text: str, views: Sequence[View]) -> Action:
    r"""Parse a reply: a call counts unless a \boxed{} comes before it; the last \boxed{} is the
    answer.
    """
    called = TOOL_CALL.search(text)
    boxed = boxed_answer(text[: called.start()] if called else text)
    if boxed is not None:
        return said(boxed, exact=is_only_boxed(text, TOOL_CALL))
    if called is None:
        return malformed(
            Reason.NO_ACTION, "There is neither a tool call nor an answer in \\boxed{}."
        )
    arguments = tool_arguments(called.group(1), TOOL)
    if isinstance(arguments, Malformed):
        return arguments
    numbers = four_numbers(arguments.get("bbox_2d"))
    target = whole_number(arguments.get("target_image"))
    if numbers is None:
        return BAD_BOX
    if target is None or not 1 <= target <= len(views):
        return malformed(
            Reason.BAD_SOURCE, f"target_image must be a number from 1 to {len(views)}."
        )
    exact = is_alone(called) and is_exact(called.group(1), _FORM)
    return exact_if(exact, _crop(numbers, views, target - 1))


def parse_as_released(text: str, views: Sequence[View]) -> Action:
    r"""Parse a reply as the published script: the last call counts, and only where it ends the
    reply. Any other reply ends the episode, with its last \boxed{} or its whole text as the answer.
    """
    if not text.endswith(TOOL_END):
        boxed = boxed_answer(text)
        return whole_text(text) if boxed is None else Answer(boxed.strip())
    return attempt(
        lambda: _executed(text.split(TOOL_START)[-1].split(TOOL_END)[0], views),
        lambda error: f"\nExecution error:\n{error}\n",
    )


def write_call(box: Box, first_view: View) -> str:
    """A call for `box`, in fractions of the original."""
    return hermes_call(
        TOOL, {"bbox_2d": [round(corner, 4) for corner in box.corners], "target_image": 1}
    )


def _is_in_fractions(box: Any) -> bool:
    return in_order(box) and max(box) <= 1


_FORM = hermes_form(TOOL, bbox_2d=_is_in_fractions, target_image=is_number)


def _crop(numbers: tuple[float, float, float, float], views: Sequence[View], source: int) -> Action:
    frame = (1, 1) if max(numbers) <= 1 else views[source].size
    crop = crop_of(numbers, frame, views, source)
    if isinstance(crop, Malformed):
        return crop
    x, y = (min(PADDING, MOST_PADDING / side) for side in _full_size(views[source]))
    region = views[source].region
    outside = x * (region.x1 - region.x0), y * (region.y1 - region.y0)
    try:
        wider = _inside(crop.box.padded(*outside), region)
    except BoxError:
        return malformed(Reason.EMPTY_BOX, "The box has no area inside the picture.")
    return check_shape(replace(crop, wider=wider), views[0].original_size, above=SIDES_ABOVE)


def _executed(body: str, views: Sequence[View]) -> Action:
    call: Any = json.loads(body)
    name = call["name"]
    arguments = call["arguments"]
    if name == "select_frames":
        raise AssertionError(
            "Execution Error: You attempted to `select_frames` from **image** not **video**. "
            f"You should use `{TOOL}` instead for inspecting **image**."
        )
    if name != TOOL:
        raise KeyError(name)
    index = arguments["target_image"] - 1
    if index >= len(views):
        raise IndexError(
            f"Execution Error: Incorrect `target_image` argument in `{TOOL}` operation. "
            f"You can only pick an image within [1,{len(views)}]"
        )
    # the script keeps the first pictures in a list of their own, where 0 and -1 count from its end
    source = [0][index] if index < 1 else index
    size = views[source].size
    box = arguments["bbox_2d"]
    per_pixel = (1, 1) if all(box[i] < 1 for i in range(4)) else size
    x0, y0, x1, y1 = (float(box[i]) / per_pixel[i % 2] for i in range(4))
    fractions = (x0 - PADDING, y0 - PADDING, x1 + PADDING, y1 + PADDING)
    padded = [min(max(0, one), 1) * size[i % 2] for i, one in enumerate(fractions)]
    cut = pil_corners(padded)
    width, height = cut[2] - cut[0], cut[3] - cut[1]
    if min(width, height) <= SIDES_ABOVE:
        return Malformed(
            Reason.TOO_SMALL,
            f"\nExecution error:\nCropped image is too small: {width}x{height}\n",
        )
    return tool_crop(
        cut,
        views[source],
        size,
        requested=(x0 * size[0], y0 * size[1], x1 * size[0], y1 * size[1]),
        emitted=box[:4],
        source=source,
    )


def _full_size(view: View) -> tuple[int, int]:
    """Size of a view's region in pixels of the original."""
    (width, height) = view.original_size
    (x0, y0, x1, y1) = view.region.corners
    return max(1, round(width * (x1 - x0))), max(1, round(height * (y1 - y0)))


def _inside(box: Box, region: Box) -> Box:
    """The part of `box` inside `region`."""
    return Box(
        max(box.x0, region.x0),
        max(box.y0, region.y0),
        min(box.x1, region.x1),
        min(box.y1, region.y1),
    )


PIXEL_REASONER = ChatProtocol(
    name="pixel_reasoner",
    system=SYSTEM,
    direct_system=DIRECT_SYSTEM,
    parser=parse,
    ask=ask_for_box,
    write_call=write_call,
    call_text=inline_call_text,
    observe=observe,
    observe_nothing="No picture.",
    stop=("</tool_call>",),
    answer_mark="\\boxed{",
    crop=CropRules(min_tokens=256, max_tokens=5120),
    as_released=Released(parser=parse_as_released, stop=()),
)
