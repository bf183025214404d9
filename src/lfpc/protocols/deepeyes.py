"""DeepEyes: Qwen2.5-VL's call, with its schema as text in the system message; boxes in pixels of
the first picture as sent.

The published V* and HR-Bench scripts cut the original with those same numbers, unscaled, boxes of
any size and beyond the edges; `as_released` does so too.
"""

import json
from collections.abc import Sequence

from lfpc.boxes import Box
from lfpc.dialogue import Action, Answer, Malformed
from lfpc.images import CropRules, View
from lfpc.protocols.base import ChatProtocol, MessagePart, Released
from lfpc.protocols.exact import hermes_form, in_order, is_exact, text_or_absent
from lfpc.protocols.reading import (
    TOOL_CALL,
    ask,
    call_or_answer,
    call_text,
    check_shape,
    crop_of,
    four_numbers,
    hermes_call,
    tool_arguments,
)
from lfpc.protocols.released import (
    FAILURES,
    filled,
    literal,
    pil_corners,
    tool_crop,
    tool_size,
    whole_text,
)

TOOL = "image_zoom_in_tool"
TOOL_START = "<tool_call>"
TOOL_END = "</tool_call>"
CROP = CropRules(min_tokens=4, max_tokens=16384)
SIDES_ABOVE = 30
"""Minimum side of a box in pixels (exclusive)."""
ASPECT = 100
"""Maximum aspect ratio of a box."""
FORM = hermes_form(TOOL, bbox_2d=in_order, label=text_or_absent)

SCHEMA = {
    "type": "function",
    "function": {
        "name": TOOL,
        "description": "Shows a region of the picture enlarged.",
        "parameters": {
            "type": "object",
            "properties": {
                "bbox_2d": {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 4,
                    "maxItems": 4,
                    "description": "[x1, y1, x2, y2] in pixels: the region's top left and bottom "
                    "right "
                    "corner.",
                },
                "label": {"type": "string", "description": "What is in the region."},
            },
            "required": ["bbox_2d"],
        },
    },
}
SYSTEM = (
    "You are a helpful assistant.\n\n# Tools\nThis function may be called to help with the "
    "user's question:\n"
    f"<tools>\n{json.dumps(SCHEMA)}\n</tools>\n\n# Calls\nWrite a call as a JSON object "
    f"between tool_call tags:\n"
    f'<tool_call>\n{{"name": "{TOOL}", "arguments": {{"bbox_2d": [x1, y1, x2, y2], '
    f'"label": "..."}}}}\n</tool_call>'
)
DIRECT_SYSTEM = "You are a helpful assistant. Write <answer>your answer</answer>"
REMINDER = (
    f"\nThink first, call {TOOL} if you need to see more, then answer. Write "
    f"<think>...</think>, then <tool_call>...</tool_call> for a "
    "call or <answer>...</answer> for the answer."
)


def observe(view: View, number: int, asked: str) -> tuple[MessagePart, ...]:
    """A crop and the reminder, between tool_response tags."""
    return ("<tool_response>", view, REMINDER, "</tool_response>")


def parse(text: str, views: Sequence[View]) -> Action:
    """Parse a reply: an answer anywhere wins, else the first call counts; its box is in pixels of
    the first view.
    """
    return call_or_answer(text, TOOL_CALL, lambda body: _read_call(body, views), answer_wins=True)


def parse_as_released(text: str, views: Sequence[View]) -> Action:
    """Parse a reply as the published V* script: an answer anywhere wins, else the first call cuts
    the original; a reply without either, or with a call that fails, is itself the answer.
    """
    if "</answer>" in text:
        stated = text.split("<answer>")[1].split("</answer>")[0] if "<answer>" in text else text
        return Answer(stated.strip())
    if TOOL_START not in text:
        return whole_text(text)
    try:
        return _executed(text.split(TOOL_START)[1].split(TOOL_END)[0].strip(), views)
    except FAILURES:
        return whole_text(text)


def write_call(box: Box, first_view: View) -> str:
    """A call for `box`, in whole pixels of the first view."""
    return hermes_call(TOOL, {"bbox_2d": list(box.to_pixels(first_view.size))})


def _executed(body: str, views: Sequence[View]) -> Action:
    left, top, right, bottom = box = literal(body)["arguments"]["bbox_2d"]
    cut = filled(pil_corners(box))
    sides = right - left, bottom - top
    tool_size(sides, CROP)
    return tool_crop(cut, views[0], views[0].original_size, sides=sides, emitted=box)


def _read_call(body: str, views: Sequence[View]) -> Action:
    frame = views[0].size
    arguments = tool_arguments(body, TOOL)
    if isinstance(arguments, Malformed):
        return arguments
    exact = is_exact(body, FORM)
    crop = crop_of(four_numbers(arguments.get("bbox_2d")), frame, views, exact=exact)
    return (
        crop
        if isinstance(crop, Malformed)
        else check_shape(crop, frame, above=SIDES_ABOVE, aspect=ASPECT)
    )


DEEPEYES = ChatProtocol(
    name="deepeyes",
    system=SYSTEM,
    direct_system=DIRECT_SYSTEM,
    parser=parse,
    ask=ask,
    remind=lambda first_view: REMINDER,
    write_call=write_call,
    call_text=call_text,
    thinks=True,
    observe=observe,
    observe_nothing="<tool_response>No picture.</tool_response>",
    stop=("</tool_call>", "</answer>"),
    crop=CROP,
    as_released=Released(parser=parse_as_released, stop=()),
)
