"""Thyme: Python code asks for the crop, in pixels of the original's file; the crop is inside the
assistant's own turn.

The code is never run. `lfpc.protocols.syntax` finds the cut region in its syntax tree. That region
is shown; other effects of the code (rotation, contrast, drawing, printed results) do not happen.
`as_released` shows the picture that the code saves, after the changes of the published sandbox.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from lfpc.boxes import Box
from lfpc.dialogue import Action, Crop, Malformed, Reason
from lfpc.images import CropRules, View
from lfpc.protocols.base import ChatProtocol, MessagePart, Released
from lfpc.protocols.reading import ask, call_or_answer, malformed
from lfpc.protocols.released import FAILURES, filled, pil_corners, tool_crop, tool_size
from lfpc.protocols.syntax import last_cut
from lfpc.protocols.thyme_sandbox import saved_picture

CODE = re.compile(r"<code>(.*?)(?:</code>|\Z)", re.DOTALL)
FILE = "image.jpg"
"""File name of the picture in the prompt."""

SYSTEM = (
    "You are a helpful assistant. Solve the problem step by step. To see more, you may "
    "write Python code that crops the picture, between "
    "<code> and </code>, in a ```python block, and that prints the path of the picture it "
    "saved. The result comes back between "
    "<sandbox_output> and </sandbox_output>."
)
DIRECT_SYSTEM = (
    "You are a helpful assistant. Solve the problem step by step, then write <answer>your "
    "answer</answer>"
)


def remind(first_view: View) -> str:
    """The file's name and size, and the form of the reply."""
    width, height = first_view.original_size
    return (
        f"\n\nPath of the picture: {FILE}\nSize of the picture: {width}x{height}\n\nWrite "
        f"<think>your reasoning, with any code</think> and "
        "<answer>your answer</answer>"
    )


def observe(view: View, number: int, asked: str) -> tuple[MessagePart, ...]:
    """A crop, between sandbox_output tags."""
    return ("<sandbox_output>", view, "</sandbox_output>")


def parse(text: str, views: Sequence[View]) -> Action:
    """Parse a reply: the first code or answer counts. Errors are worded as the sandbox's."""
    return _parsed(text, lambda body: _read_code(body, views))


def parse_as_released(text: str, views: Sequence[View]) -> Action:
    """As `parse`, with the last picture that the code saves."""
    return _parsed(text, lambda body: _saved_by(body, views[0]))


def _parsed(text: str, read_code: Callable[[str], Action]) -> Action:
    action = call_or_answer(text, CODE, read_code, calls_in_thinking=True)
    return (
        replace(action, detail=f"<sandbox_output>{action.detail}</sandbox_output>")
        if isinstance(action, Malformed)
        else action
    )


def write_call(box: Box, first_view: View) -> str:
    """Code that cuts `box`, in whole pixels of the original."""
    return (
        f"<code>\n```python\nfrom PIL import Image\nimage = Image.open({FILE!r})\n"
        f"image.crop({box.to_pixels(first_view.original_size)}).save('crop.jpg')\nprint('cr"
        f"op.jpg')\n```\n</code>"
    )


def _read_code(body: str, views: Sequence[View]) -> Action:
    code = body.strip().removeprefix("```").removeprefix("python").removesuffix("```").strip()
    try:
        cut = last_cut(code, views[0].original_size)
    except ValueError as error:
        return malformed(Reason.BAD_CODE, f"{error}.")
    if cut is None:
        return malformed(Reason.NO_CROP, "The code cuts no region whose coordinates can be told.")
    if cut.region is None:
        return malformed(
            Reason.EMPTY_BOX, "The code cuts a region that has no area inside the picture."
        )
    return Crop(cut.region, emitted=cut.numbers)


def _saved_by(body: str, first_view: View) -> Action:
    code = body.strip().removeprefix("```").removeprefix("python").removesuffix("```")
    size = first_view.original_size
    try:
        picture, last = saved_picture(code, size)
    except ValueError as error:
        return malformed(Reason.BAD_CODE, f"{error}.")
    if picture is None or picture.corners is None:
        return malformed(Reason.NO_CROP, "The code saves no picture that can be told.")
    try:
        cut = filled(pil_corners(picture.corners))
        sides = picture.width, picture.height
        tool_size(sides, CropRules())
        return tool_crop(cut, first_view, size, sides=sides, emitted=last.numbers if last else ())
    except FAILURES as error:
        return malformed(Reason.EMPTY_BOX, f"{error}.")


THYME = ChatProtocol(
    name="thyme",
    system=SYSTEM,
    direct_system=DIRECT_SYSTEM,
    parser=parse,
    ask=ask,
    remind=remind,
    write_call=write_call,
    observe=observe,
    observe_nothing="<sandbox_output></sandbox_output>",
    observation_role="assistant",
    stop=("</code>", "</answer>"),
    as_released=Released(parser=parse_as_released),
)
