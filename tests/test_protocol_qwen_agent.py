import json
from typing import Any

import pytest
from PIL import Image
from shown import FIRST

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer
from lfpc.images import View, crop_view
from lfpc.protocols import protocol_named
from lfpc.protocols.qwen_agent import TOOL

RELEASED = protocol_named("qwen3_vl", "as-released")


def agent_call(box: Any, **arguments: Any) -> str:
    given = {"bbox_2d": box, "label": "sign", "img_idx": 0} | arguments
    return f"<tool_call>\n{json.dumps({'name': TOOL, 'arguments': given})}\n</tool_call>"


@pytest.mark.parametrize(
    ("box", "cut", "size"),
    [
        # thousandths of 4000 x 2000, rounded to whole pixels, sides to multiples of 32
        ([100.1, 100, 400, 600], (400, 200, 1600, 1200), (1184, 992)),
        # 12.4 x 20.6 pixels: half sides 16 and 27, about (406.6, 210.3) and outwards
        ([100.1, 100, 103.2, 110.3], (390, 183, 423, 238), (416, 672)),
        # about whole pixels the shorter side grows to 32, which the tool does not count as larger
        ([100, 100, 103, 110], (400, 200, 412, 220), (416, 672)),
        ([0, 0, 8, 16], (0, 0, 32, 32), (512, 512)),
        ([0, 0, 5, 10], (0, 0, 20, 20), (512, 512)),
        ([-50, -50, 500, 1050], (0, 0, 2000, 2000), (1984, 1984)),
    ],
)
def test_as_released_a_small_box_grows_on_both_sides(box: Any, cut: Any, size: Any) -> None:
    action: Any = RELEASED.parse(agent_call(box), [FIRST])
    view = crop_view(Image.new("RGB", (4000, 2000)), action.shown, RELEASED.crop)
    assert view.cut == cut
    assert view.size == size


def test_as_released_crops_have_at_most_12_8_million_pixels() -> None:
    huge = View(Image.new("RGB", (64, 32)), WHOLE, (8000, 4000))
    action: Any = RELEASED.parse(agent_call([0, 0, 1000, 1000]), [huge])
    width, height = crop_view(Image.new("L", (8000, 4000)), action.shown, RELEASED.crop).size
    assert 12_600_000 < width * height <= 12_845_056


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (agent_call([800, 1, 500, 900]), "Tool Execution Error Coordinate 'right' is less than"),
        (agent_call([5, 7, 5, 40]), "Tool Execution Error float division by zero"),
        (agent_call([1, 2, 3]), "Tool Execution Error not enough values to unpack (expected 4"),
        (agent_call([0, 500, 1000, 501]), "Tool Execution Error absolute aspect ratio must be sm"),
        (agent_call([1, 2, 30, 40], img_idx=1), "Error: Invalid input image"),
        (
            f'<tool_call>{{"name": "{TOOL}", "arguments": {{"bbox_2d": 1}}}}</tool_call>',
            "An error occurred when calling tool: ValueError: parameter label missing",
        ),
        (
            f'<tool_call>\n{{"name": "{TOOL}", "arguments": {{"bbox_2d": [1, 2, 3\n</tool_call>',
            "An error occurred when calling tool: ValueError: Parameters must be formatted as a",
        ),
        ('<tool_call>{"name": "zoom", "arguments": {}}</tool_call>', "Tool zoom does not exists."),
    ],
)
def test_as_released_errors_have_the_words_of_the_agent(text: str, error: str) -> None:
    action: Any = RELEASED.parse(text, [FIRST])
    assert action.detail.startswith(error)


def test_as_released_a_call_after_the_thinking_counts_before_an_answer() -> None:
    box = Box(0.1, 0.1, 0.4, 0.6)
    called = agent_call([100, 100, 400, 600])
    for text in (
        called + "<answer>K</answer>",
        "<think>I look.</think>" + called,
        called.removesuffix("\n</tool_call>"),
        called.replace("0}}", "0,}}"),
        called.replace("<tool_call>\n", "<tool_call>I call: "),
    ):
        action: Any = RELEASED.parse(text, [FIRST])
        assert action.box == box
    assert RELEASED.parse("<think>" + called + "</think> K", [FIRST]) == Answer("K")
    bare = "<function=image_zoom_in_tool><parameter=bbox_2d>[1, 2, 3, 4]</parameter></function>"
    assert RELEASED.parse(bare, [FIRST]) == Answer(bare)
