import json
from typing import Any

import pytest
from shown import FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import Box
from lfpc.dialogue import Answer, Crop
from lfpc.protocols import protocol_named
from lfpc.protocols.deepeyes import DEEPEYES, REMINDER, SYSTEM, TOOL

CALL = """<think>The van is small. I zoom in.</think>
<tool_call>
{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [100, 20, 180, 60], "label": "van"}}
</tool_call>"""


def call(box: Any) -> str:
    return f"<tool_call>{json.dumps({'name': TOOL, 'arguments': {'bbox_2d': box}})}</tool_call>"


def test_a_dialogue() -> None:
    assert talk(DEEPEYES, (CALL, RIGHT), ("hm", None)) == [
        ("system", (SYSTEM,)),
        ("user", (FIRST, "Which letter is on the van?\nA. K\nB. L" + REMINDER)),
        ("assistant", (CALL,)),
        ("user", ("<tool_response>", RIGHT, REMINDER, "</tool_response>")),
        ("assistant", ("hm",)),
        ("user", ("Error: There is neither a tool call nor an answer.",)),
    ]
    assert '"name": "image_zoom_in_tool"' in SYSTEM
    assert DEEPEYES.parse("<think>A K.</think><answer>A. K</answer>", [FIRST, RIGHT]) == Answer(
        "A. K"
    )


def test_boxes_are_pixels_of_the_first_picture_also_after_a_crop() -> None:
    # 100/200, 20/100, 180/200, 60/100
    for views in ([FIRST], [FIRST, RIGHT]):
        assert DEEPEYES.parse(CALL, views) == Crop(Box(0.5, 0.2, 0.9, 0.6))


def test_as_released_the_same_numbers_cut_the_original() -> None:
    action = protocol_named("deepeyes", "as-released").parse(CALL, [FIRST])
    # 100/4000, 20/2000, 180/4000, 60/2000
    assert action == Crop(Box(0.025, 0.01, 0.045, 0.03))
    assert emitted(action) == ((100, 20, 180, 60), 0)


def test_an_answer_wins_and_of_several_calls_the_first_counts() -> None:
    assert DEEPEYES.parse(CALL + "<answer>K</answer>", [FIRST]) == Answer("K")
    assert DEEPEYES.parse(CALL + call([0, 0, 40, 40]), [FIRST]) == Crop(Box(0.5, 0.2, 0.9, 0.6))


def test_sides_are_measured_after_the_box_is_cut_off_at_the_edge() -> None:
    assert reason(DEEPEYES.parse(call([0, 0, 30, 31]), [FIRST])) == "too_small"
    assert reason(DEEPEYES.parse(call([0, 0, 31, 31]), [FIRST])) is None
    assert reason(DEEPEYES.parse(call([180, 0, 260, 50]), [FIRST])) == "too_small"
    released = protocol_named("deepeyes", "as-released")
    assert reason(released.parse(call([0, 0, 3200, 31]), [FIRST])) == "too_narrow"
    assert reason(released.parse(call([0, 0, 3100, 31]), [FIRST])) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<tool_call>[1]</tool_call>", "unknown_tool"),
        (
            "<tool_call>{'name': 'image_rotate_tool', 'arguments': {'angle': 90}}</tool_call>",
            "unknown_tool",
        ),
        (call([1, 2, 3]), "bad_box"),
        (call([9, 9, 9, 90]), "empty_box"),
        ("<answer> </answer>", "empty_answer"),
        ("<tool_call>__import__('os').remove('x')</tool_call>", "bad_json"),
    ],
)
def test_a_malformed_reply_has_a_reason(text: str, why: str) -> None:
    assert reason(DEEPEYES.parse(text, [FIRST])) == why
