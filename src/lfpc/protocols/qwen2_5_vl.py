"""Qwen2.5-VL: a JSON tool call whose box is in pixels of the shown picture, an answer between
<answer> tags.
"""

from collections.abc import Sequence

from lfpc.boxes import Box
from lfpc.dialogue import Action, Crop, Malformed, Reason
from lfpc.errors import BoxError
from lfpc.images import View
from lfpc.protocols.base import ChatProtocol
from lfpc.protocols.exact import hermes_form, in_order, is_exact
from lfpc.protocols.reading import (
    TOOL_CALL,
    ask,
    call_or_answer,
    four_numbers,
    hermes_call,
    inline_call_text,
    malformed,
    observe_tagged,
    tool_arguments,
)

TOOL = "image_zoom_in_tool"
_FORM = hermes_form(TOOL, bbox_2d=in_order)

SYSTEM = (
    "You answer questions about a picture.\n\n# Tool\n"
    f"{TOOL} shows a region of the picture at full resolution. bbox_2d is [x1, y1, x2, y2] "
    f"in pixels of the picture you see.\n"
    f'To call it, write <tool_call>{{"name": "{TOOL}", "arguments": {{"bbox_2d": [x1, y1, '
    f"x2, y2]}}}}</tool_call>\n\n"
    "When you know the answer, write <answer>your answer</answer>"
)
DIRECT_SYSTEM = "You answer questions about a picture. Write <answer>your answer</answer>"


def parse(text: str, views: Sequence[View]) -> Action:
    """Parse a reply. A call wins over a later answer; of several calls the first counts.

    JSON is not repaired: this protocol is trained, and its reward pays for valid calls.

    Args:
        text: the reply, of any form.
        views: pictures shown so far; the box is in pixels of the first.
    """
    return call_or_answer(text, TOOL_CALL, lambda body: _read_call(body, views[0]))


def write_call(box: Box, first_view: View) -> str:
    """A call for `box`, in whole pixels of the first view."""
    return hermes_call(TOOL, {"bbox_2d": list(box.to_pixels(first_view.size))})


def _read_call(body: str, shown: View) -> Action:
    arguments = tool_arguments(body, TOOL, repair=False)
    if isinstance(arguments, Malformed):
        return arguments
    numbers = four_numbers(arguments.get("bbox_2d"), lenient=False)
    if numbers is None:
        return malformed(Reason.BAD_BOX, "bbox_2d must be four numbers [x1, y1, x2, y2].")
    try:
        box = Box.from_pixels(numbers, shown.size)
        return Crop(box, emitted=numbers, exact=is_exact(body, _FORM))
    except BoxError:
        width, height = shown.size
        return malformed(
            Reason.EMPTY_BOX,
            f"bbox_2d has no area inside the picture, which is {width} x {height} pixels.",
        )


QWEN2_5_VL = ChatProtocol(
    name="qwen2_5_vl",
    system=SYSTEM,
    direct_system=DIRECT_SYSTEM,
    parser=parse,
    ask=ask,
    write_call=write_call,
    call_text=inline_call_text,
    observe=observe_tagged,
    observe_nothing="<tool_response>No picture.</tool_response>",
    stop=("</tool_call>", "</answer>"),
)
