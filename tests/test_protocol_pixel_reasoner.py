import json
from typing import Any

import pytest
from shown import CORNER, FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer
from lfpc.protocols import protocol_named
from lfpc.protocols.pixel_reasoner import FINAL, PIXEL_REASONER, SYSTEM, TOOL

RELEASED = protocol_named("pixel_reasoner", "as-released")


def call(box: Any, target: Any = 1) -> str:
    called = {"name": TOOL, "arguments": {"bbox_2d": box, "target_image": target}}
    return f"I look closer.\n<tool_call>{json.dumps(called)}</tool_call>"


def test_a_dialogue() -> None:
    text = call([0.6, 0.2, 0.9, 0.8])
    assert talk(PIXEL_REASONER, (text, RIGHT)) == [
        ("system", (SYSTEM,)),
        ("user", (FIRST, f"Which letter is on the van?\nA. K\nB. L\n\n{FINAL}")),
        ("assistant", (text,)),
        ("user", ("This is the region (picture 2, 112 x 112 pixels):", RIGHT)),
    ]
    assert PIXEL_REASONER.parse("So it is \\boxed{A}.", [FIRST, RIGHT]) == Answer("A")


def test_what_is_shown_is_a_tenth_of_the_picture_wider_on_every_side() -> None:
    action: Any = PIXEL_REASONER.parse(call([0.6, 0.2, 0.95, 0.8]), [FIRST])
    assert action.box == Box(0.6, 0.2, 0.95, 0.8)
    # 0.1 of 4000 and of 2000 pixels is below 600; the right side ends at the edge
    assert action.shown.corners == pytest.approx((0.5, 0.1, 1, 0.9))
    assert emitted(action) == ((0.6, 0.2, 0.95, 0.8), 0)


def test_the_margin_is_at_most_600_pixels() -> None:
    huge = type(FIRST)(FIRST.image, WHOLE, (12_000, 2000))
    action: Any = PIXEL_REASONER.parse(call([0.5, 0.5, 0.6, 0.6]), [huge])
    # 600 / 12000 = 0.05
    assert action.shown.corners == pytest.approx((0.45, 0.4, 0.65, 0.7))


def test_a_crop_of_a_crop_and_its_margin_stay_inside_the_crop() -> None:
    action: Any = PIXEL_REASONER.parse(call([0, 0.5, 0.5, 1], target=2), [FIRST, RIGHT])
    # picture 2 is the right half: 0.5 + 0.5 * 0.5; a tenth of it is 0.05 across and 0.1 down
    assert action.box == Box(0.5, 0.5, 0.75, 1)
    assert action.shown.corners == pytest.approx((0.5, 0.4, 0.8, 1))
    assert emitted(action) == ((0, 0.5, 0.5, 1), 1)


def test_numbers_above_one_are_pixels_of_the_picture_as_shown() -> None:
    action: Any = PIXEL_REASONER.parse(call([100, 20, 150, 60]), [FIRST])
    assert action.box == Box(0.5, 0.2, 0.75, 0.6)
    second: Any = PIXEL_REASONER.parse(call([56, 56, 84, 112], target=2), [FIRST, RIGHT])
    assert second.box == Box(0.75, 0.5, 0.875, 1)


def test_as_released_a_one_makes_pixels_of_the_original_of_all_four() -> None:
    assert PIXEL_REASONER.parse(call([0.5, 0, 1.0, 1.0]), [FIRST]).box == Box(0.5, 0, 1, 1)
    released: Any = RELEASED.parse(call([0.5, 0, 1.0, 1.0]), [FIRST])
    # 0.5/4000 to 1/4000: half a pixel, and a tenth of the picture around it
    assert released.box.corners == pytest.approx((0.000125, 0, 0.00025, 0.0005))
    assert released.shown.corners == pytest.approx((0, 0, 0.10025, 0.1005))
    pixels: Any = RELEASED.parse(call([100, 20, 150, 60]), [FIRST])
    assert pixels.box.corners == pytest.approx((0.025, 0.01, 0.0375, 0.03))
    assert RELEASED.parse(call([0.5, 0, 0.99, 0.5]), [FIRST]) == PIXEL_REASONER.parse(
        call([0.5, 0, 0.99, 0.5]), [FIRST]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\\boxed{K}", "K"),
        ("\\boxed{\\text{K}}", "K"),
        ("first \\boxed{L}, no, \\boxed{\\frac{1}{2}} it is", "\\frac{1}{2}"),
        ("\\boxed{K", "K"),
        ("\\boxed{K} " + call([0, 0, 0.5, 0.5]), "K"),
    ],
)
def test_the_last_box_before_any_call_is_the_answer(text: str, said: str) -> None:
    assert PIXEL_REASONER.parse(text, [FIRST]) == Answer(said)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("it is K", "no_action"),
        ("<answer>K</answer>", "no_action"),
        ("\\boxed{ }", "empty_answer"),
        (call([0, 0, 0.5, 0.5], target=3), "bad_source"),
        (call([0, 0, 0.5, 0.5], target=0), "bad_source"),
        (call([0, 0, 0.5, 0.5], target=None), "bad_source"),
        (call([0, 0, 0.5, 0.5], target=1.5), "bad_source"),
        (call(None), "bad_box"),
        (call([0.5, 0.5, 0.5, 0.7]), "empty_box"),
        (
            f'<tool_call>{{"name": "select_frames", "arguments": {{"target_frames": '
            f"[1]}}}}</tool_call>{call([0, 0, 1, 1])}",
            "unknown_tool",
        ),
    ],
)
def test_a_malformed_reply_has_a_reason(text: str, why: str) -> None:
    assert reason(PIXEL_REASONER.parse(text, [FIRST, RIGHT])) == why


def test_a_region_of_28_pixels_of_the_original_is_too_small() -> None:
    speck = type(FIRST)(FIRST.image, Box(0, 0, 0.005, 0.5), (4000, 2000))
    # 0.005 * 4000 = 20 pixels across, however much margin is added
    assert reason(PIXEL_REASONER.parse(call([0, 0, 1, 1], target=2), [FIRST, speck])) == "too_small"
    assert (
        reason(PIXEL_REASONER.parse(call([0.2, 0.2, 0.6, 0.6], target=2), [FIRST, CORNER])) is None
    )
