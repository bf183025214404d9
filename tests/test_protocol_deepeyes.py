import json
from typing import Any

import pytest
from PIL import Image
from shown import FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Crop
from lfpc.images import View, crop_view
from lfpc.protocols import protocol_named
from lfpc.protocols.deepeyes import DEEPEYES, REMINDER, SYSTEM, TOOL

RELEASED = protocol_named("deepeyes", "as-released")
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
    action: Any = RELEASED.parse(CALL, [FIRST])
    # 100/4000, 20/2000, 180/4000, 60/2000
    assert action.box == Box(0.025, 0.01, 0.045, 0.03)
    assert emitted(action) == ((100, 20, 180, 60), 0)


@pytest.mark.parametrize(
    ("box", "cut", "size"),
    [
        ([100.5, 20.5, 212.4, 104.6], (100, 20, 212, 105), (112, 84)),  # halves to even
        ([500, 500, 510, 510], (500, 500, 510, 510), (56, 56)),  # 4 tokens at least
        ([3900, 1900, 4124, 2012], (3900, 1900, 4124, 2012), (224, 112)),
        ([-56, -28, 56, 28], (-56, -28, 56, 28), (112, 56)),
        ([4010, 2010, 4066, 2066], (4010, 2010, 4066, 2066), (56, 56)),
        ([0, 100, 4000, 104], (0, 100, 4000, 104), (4004, 28)),
    ],
)
def test_as_released_any_box_is_cut_and_what_lies_outside_is_black(
    box: Any, cut: Any, size: Any
) -> None:
    action: Any = RELEASED.parse(call(box), [FIRST])
    view = crop_view(Image.new("RGB", (4000, 2000), "white"), action.shown, RELEASED.crop)
    assert (view.cut, view.size) == (cut, size)
    white = max(0, min(cut[2], 4000) - max(cut[0], 0)) * max(0, min(cut[3], 2000) - max(cut[1], 0))
    share = white / ((cut[2] - cut[0]) * (cut[3] - cut[1]))
    brightness = sum(i * n for i, n in enumerate(view.image.convert("L").histogram()))
    assert brightness / (255 * size[0] * size[1]) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    "text",
    [
        call([180, 20, 100, 60]),
        call([10, 10, 10, 60]),
        call([1, 2, 3]),
        call([[1, 2, 3, 4]]),
        call([0, 0, 10**6, 10**6]),
        "<tool_call>{'name': 'zoom'}</tool_call>",
        "<tool_call>I call: {}</tool_call>",
        "It is K.",
        "</answer>",
        "",
    ],
)
def test_as_released_a_reply_whose_call_fails_is_the_answer(text: str) -> None:
    assert RELEASED.parse(text, [FIRST]) == Answer(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (CALL + "<answer> K </answer>", "K"),
        ("<answer></answer>", ""),
        ("<answer>K</answer> or <answer>L</answer>", "K"),
    ],
)
def test_as_released_the_first_closed_answer_wins(text: str, answer: str) -> None:
    assert RELEASED.parse(text, [FIRST]) == Answer(answer)
    assert isinstance(RELEASED.parse(CALL + "<answer>K", [FIRST]), Crop)


def test_an_answer_wins_and_of_several_calls_the_first_counts() -> None:
    assert DEEPEYES.parse(CALL + "<answer>K</answer>", [FIRST]) == Answer("K")
    assert DEEPEYES.parse(CALL + call([0, 0, 40, 40]), [FIRST]) == Crop(Box(0.5, 0.2, 0.9, 0.6))


def test_sides_are_measured_after_the_box_is_cut_off_at_the_edge() -> None:
    assert reason(DEEPEYES.parse(call([0, 0, 30, 31]), [FIRST])) == "too_small"
    assert reason(DEEPEYES.parse(call([0, 0, 31, 31]), [FIRST])) is None
    assert reason(DEEPEYES.parse(call([180, 0, 260, 50]), [FIRST])) == "too_small"
    wide = View(Image.new("RGB", (4000, 100)), WHOLE, (4000, 100))
    assert reason(DEEPEYES.parse(call([0, 0, 3200, 31]), [wide])) == "too_narrow"
    assert reason(DEEPEYES.parse(call([0, 0, 3100, 31]), [wide])) is None


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
