import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Context, Crop, Malformed, Reply, Turn
from lfpc.images import View
from lfpc.protocols.base import Message
from lfpc.protocols.qwen2_5_vl import DIRECT_SYSTEM, QWEN2_5_VL, SYSTEM, TOOL

SHOWN = [View(Image.new("RGB", (200, 100)), WHOLE)]


def call(box: Any, name: Any = TOOL) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': {'bbox_2d': box}})}</tool_call>"


def test_a_call_is_read_in_pixels_of_the_shown_picture() -> None:
    # 50/200, 25/100, 150/200, 100/100
    assert QWEN2_5_VL.parse("I look closer. " + call([50, 25, 150, 100]), SHOWN) == Crop(
        Box(0.25, 0.25, 0.75, 1.0)
    )


def test_the_numbers_it_wrote_are_kept_beside_the_box() -> None:
    action = QWEN2_5_VL.parse(call([250, 25.5, 150, 100]), SHOWN)
    assert isinstance(action, Crop)
    # swapped and beyond the edge as written; in order and cut off as a box
    assert (action.emitted, action.box) == ((250, 25.5, 150, 100), Box(0.75, 0.255, 1, 1))


def test_an_answer_is_read_without_its_blanks() -> None:
    assert QWEN2_5_VL.parse("so <answer> red kite\n</answer>", SHOWN) == Answer("red kite")


def test_an_unclosed_tag_reads_to_the_end() -> None:
    assert QWEN2_5_VL.parse("<answer>red", SHOWN) == Answer("red")
    assert QWEN2_5_VL.parse(call([0, 0, 20, 20]).removesuffix("</tool_call>"), SHOWN) == Crop(
        Box(0, 0, 0.1, 0.2)
    )


def test_what_comes_first_counts() -> None:
    crop = call([0, 0, 200, 100])
    assert QWEN2_5_VL.parse(crop + "<answer>x</answer>", SHOWN) == Crop(WHOLE)
    assert QWEN2_5_VL.parse("<answer>x</answer>" + crop, SHOWN) == Answer("x")
    assert QWEN2_5_VL.parse(crop + call([0, 0, 1, 1]), SHOWN) == Crop(WHOLE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("just thinking", "no_action"),
        ("", "no_action"),
        ("<answer>  </answer>", "empty_answer"),
        ("<tool_call>zoom please</tool_call>", "bad_json"),
        ("<tool_call></tool_call>", "bad_json"),
        ("<tool_call>" + "[" * 50_000, "bad_json"),
        (call([0, 0, 1, 1], "rotate"), "unknown_tool"),
        ("<tool_call>[1, 2]</tool_call>", "unknown_tool"),
        (call("everything"), "bad_box"),
        (call([0, 0, 1]), "bad_box"),
        (call([0, 0, True, 1]), "bad_box"),
        (call([0, 0, "9", 1]), "bad_box"),
        (f'<tool_call>{{"name": "{TOOL}", "arguments": [0, 0, 1, 1]}}</tool_call>', "bad_box"),
        (call([5, 5, 5, 9]), "empty_box"),
        (call([300, 0, 400, 50]), "empty_box"),
        (call([float("nan"), 0, 1, 1]), "empty_box"),
        (call([10**400, 0, 1, 1]), "empty_box"),
    ],
)
def test_a_malformed_reply_has_a_reason(text: str, reason: str) -> None:
    action = QWEN2_5_VL.parse(text, SHOWN)
    assert isinstance(action, Malformed)
    assert action.reason == reason
    assert action.detail.startswith("Error: ")


PIECES = [
    "<tool_call>",
    "</tool_call>",
    "<answer>",
    f'{{"name": "{TOOL}", "arguments": {{"bbox_2d": ',
    "NaN",
    *'<>/{}[]",:0129.-e ',
]


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
@example("<tool_call>" + "9" * 5000 + "</tool_call>")
@example("\ud800<answer>\ud800")
def test_any_text_is_an_action(text: str) -> None:
    assert isinstance(QWEN2_5_VL.parse(text, SHOWN), Crop | Answer | Malformed)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=5),
    )
)
def test_any_box_value_is_an_action(box: Any) -> None:
    assert isinstance(QWEN2_5_VL.parse(call(box), SHOWN), Crop | Malformed)


def test_the_conversation_as_the_model_reads_it() -> None:
    first = SHOWN[0]
    crop = View(Image.new("RGB", (56, 56)), Box(0, 0, 0.5, 0.5))
    turns = (
        Turn(
            Reply("hm"),
            Malformed("no_action", "Error: There is neither a tool call nor an answer."),
        ),
        Turn(Reply("call"), Crop(crop.region), crop),
        Turn(Reply("again"), Crop(crop.region), None),
    )
    messages = QWEN2_5_VL.messages(Context("Which?", ("red", "blue"), first, turns))
    assert messages == [
        Message("system", (SYSTEM,)),
        Message("user", (first, "Which?\nA. red\nB. blue")),
        Message("assistant", ("hm",), reply=0),
        Message("user", ("Error: There is neither a tool call nor an answer.",)),
        Message("assistant", ("call",), reply=1),
        Message("user", ("<tool_response>", crop, "</tool_response>")),
        Message("assistant", ("again",), reply=2),
        Message("user", ("<tool_response>No picture.</tool_response>",)),
    ]
    assert QWEN2_5_VL.messages(Context("Which?", (), first, ()), tools=False)[0] == Message(
        "system", (DIRECT_SYSTEM,)
    )


def test_the_prompt_has_not_changed() -> None:
    assert (
        SYSTEM
        == """You answer questions about a picture.

# Tool
image_zoom_in_tool shows a region of the picture at full resolution. bbox_2d is \
[x1, y1, x2, y2] in pixels of the picture you see.
To call it, write <tool_call>{"name": "image_zoom_in_tool", "arguments": \
{"bbox_2d": [x1, y1, x2, y2]}}</tool_call>

When you know the answer, write <answer>your answer</answer>"""
    )
