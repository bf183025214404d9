"""The as-released reading of Qwen3-VL: what Qwen-Agent makes of a reply, and what its zoom tool
cuts.
"""

import json
import re
from collections.abc import Sequence
from math import ceil, floor
from typing import Any

from lfpc.boxes import Size
from lfpc.dialogue import Action, Answer, Malformed, Reason
from lfpc.images import CropRules, View
from lfpc.protocols.reading import ANSWER
from lfpc.protocols.released import (
    FAILURES,
    LONGEST_ERROR,
    attempt,
    filled,
    pil_corners,
    tool_crop,
    tool_size,
)

TOOL = "image_zoom_in_tool"
LEAST_SIDE = 32
"""Minimum side of a crop in pixels of the original; shorter sides are widened."""
RELEASED_CROP = CropRules(factor=32, min_tokens=256, max_tokens=12544)  # 12,845,056 pixels

_NAME = '"name": "'
_ARGUMENTS = '"arguments": '
_TRAILING_COMMA = re.compile(r",\s{0,20}([\]}])")


def parse_as_released(text: str, views: Sequence[View]) -> Action:
    """Parse a reply as Qwen-Agent: the first call after the thinking counts, also before an answer;
    without one the reply is the answer.
    """
    text = text.rpartition("</think>")[2]
    for called in text.split("<tool_call>")[1:]:
        body, closed, _ = called.partition("</tool_call>")
        try:
            call: Any = _json5(body) if closed else None
        except ValueError:
            call = None
        if call is None:
            name, given = _found_call(body.strip() if closed else body)
            if name or closed:
                return _released_call(name, given, views)
        elif isinstance(call, dict) and "name" in call and "arguments" in call:
            return _released_call(call["name"], json.dumps(call["arguments"]), views)
        else:
            return Answer("")
    answered = ANSWER.search(text)
    return Answer((answered.group(1) if answered else text).strip())


def _json5(text: str) -> Any:
    """JSON with the liberties of JSON5 that models take: commas before a closing bracket, and
    single quotes.

    Raises:
        ValueError: neither.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        plain = _TRAILING_COMMA.sub(r"\1", text if '"' in text else text.replace("'", '"'))
    try:
        return json.loads(plain)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _found_call(text: str) -> tuple[str, str]:
    """Name and arguments of a call that is no JSON, as Qwen-Agent searches for them; empty: not
    found.
    """
    start = text.find(_NAME)
    name, ended, _ = text[start + len(_NAME) :].partition('", "')
    place = text.find(_ARGUMENTS)
    given = text[place + len(_ARGUMENTS) :].strip() if place > 0 else ""
    return name if start > 0 and ended else "", given[:-1] if len(given) > 2 else ""


def _released_call(name: Any, given: str, views: Sequence[View]) -> Action:
    if name != TOOL:
        return Malformed(Reason.UNKNOWN_TOOL, f"Tool {name} does not exists."[:LONGEST_ERROR])
    try:
        arguments: Any = _json5(given)
    except ValueError:
        why = "ValueError: Parameters must be formatted as a valid JSON!"
        return Malformed(Reason.BAD_JSON, f"An error occurred when calling tool: {why}")
    return attempt(
        lambda: _zoomed(arguments, views),
        lambda error: f"An error occurred when calling tool: {type(error).__name__}: {error}",
    )


def _zoomed(arguments: Any, views: Sequence[View]) -> Action:
    for name in ("bbox_2d", "label", "img_idx"):
        if name not in arguments:
            raise ValueError(f"parameter {name} missing")
    picture = arguments["img_idx"]
    box = arguments["bbox_2d"]
    try:
        source = [0][picture]
    except FAILURES:
        return Malformed(Reason.BAD_SOURCE, "Error: Invalid input image")
    return attempt(lambda: _cut(box, views[source]), lambda error: f"Tool Execution Error {error}")


def _cut(box: Any, view: View) -> Action:
    x1, y1, x2, y2 = box
    width, height = view.original_size
    pixels = x1 / 1000.0 * width, y1 / 1000.0 * height, x2 / 1000.0 * width, y2 / 1000.0 * height
    left, top, right, bottom = shown = _enlarged(pixels, view.original_size)
    cut = filled(pil_corners(shown))
    sides = right - left, bottom - top
    tool_size(sides, RELEASED_CROP)
    inside = _within(pixels, view.original_size)
    return tool_crop(
        cut, view, view.original_size, requested=inside, sides=sides, emitted=tuple(box)
    )


def _within(
    box: tuple[float, float, float, float], size: Size
) -> tuple[float, float, float, float]:
    return max(0, box[0]), max(0, box[1]), min(size[0], box[2]), min(size[1], box[3])


def _enlarged(
    box: tuple[float, float, float, float], size: Size
) -> tuple[float, float, float, float]:
    """The box inside the picture; if a side is below the minimum, both sides are scaled alike until
    it is not, unless an edge of the picture prevents that.
    """
    left, top, right, bottom = _within(box, size)
    width = right - left
    height = bottom - top
    if width >= LEAST_SIDE and height >= LEAST_SIDE:
        return left, top, right, bottom
    ratio = LEAST_SIDE / min(height, width)
    half_width = ceil(width * ratio * 0.5)
    half_height = ceil(height * ratio * 0.5)
    x = (left + right) / 2.0
    y = (top + bottom) / 2.0
    larger = _within(
        (
            floor(x - half_width),
            floor(y - half_height),
            ceil(x + half_width),
            ceil(y + half_height),
        ),
        size,
    )
    grown = larger[2] - larger[0] > LEAST_SIDE and larger[3] - larger[1] > LEAST_SIDE
    return larger if grown else (left, top, right, bottom)
