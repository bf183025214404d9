import json
from typing import Any

import pytest
from PIL import Image
from shown import CORNER, FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer
from lfpc.images import View, crop_view
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


def released(box: Any, target: Any = 1, views: Any = (FIRST,)) -> Any:
    return RELEASED.parse(call(box, target), views)


def test_as_released_a_one_makes_pixels_of_the_shown_picture_of_all_four() -> None:
    assert PIXEL_REASONER.parse(call([0.5, 0, 1.0, 1.0]), [FIRST]).box == Box(0.5, 0, 1, 1)
    # of 200 x 100: 0.5 / 200 to 1 / 200, and a tenth of the picture around it is 21 x 11: too small
    speck = released([0.5, 0, 1.0, 1.0])
    assert speck.detail == "\nExecution error:\nCropped image is too small: 21x11\n"
    # 100 - 20 to 150 + 20, 20 - 10 to 60 + 10; in pixels of the original times 20
    assert released([100, 20, 150, 60]).shown.cut == (1600, 200, 3400, 1400)
    assert released([100, 20, 150, 60]).box == Box(0.5, 0.2, 0.75, 0.6)
    # -0.1 and 1.09 end at the edges, 0.2 - 0.1 and 0.5 + 0.1 do not
    assert released([0, 0.2, 0.99, 0.5]).shown.cut == (0, 200, 4000, 1200)


def test_as_released_the_margin_has_no_maximum_and_whole_pixels_are_rounded() -> None:
    huge = View(Image.new("RGB", (3332, 1876)), WHOLE, (3332, 1876))
    # 500 - 333.2, 400 - 187.6, 900 + 333.2, 800 + 187.6
    assert released([500, 400, 900, 800], views=[huge]).shown.cut == (167, 212, 1233, 988)
    wide = View(Image.new("RGB", (12_000, 600)), WHOLE, (12_000, 600))
    # a tenth of 12000 is 1200
    assert released([0.5, 0.5, 0.6, 0.6], views=[wide]).shown.cut == (4800, 240, 8400, 420)


def test_as_released_the_size_follows_the_pixels_of_the_picture_that_was_shown() -> None:
    second = released([0.25, 0.25, 0.5, 0.5], target=2, views=[FIRST, RIGHT])
    # of 112 x 112: 16.8 to 67.2, rounded 17 to 67; of the right half of the original, 2000 x 2000
    assert second.shown.sides == (50, 50)
    assert second.shown.cut == (2304, 304, 3196, 1196)
    view = crop_view(Image.new("RGB", (4000, 2000)), second.shown, RELEASED.crop)
    assert (view.size, view.cut) == ((448, 448), second.shown.cut)  # 256 tokens at least


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("I see K.", "I see K."),
        ("so \\boxed{K}", "K"),
        (call([0.1, 0.2, 0.4, 0.5]) + "\nNow I wait.", None),
        (call([0.1, 0.2, 0.4, 0.5]) + "<answer>L</answer>", None),
        (call([0.1, 0.2, 0.4, 0.5]).removesuffix("</tool_call>"), None),
        ("", ""),
    ],
)
def test_as_released_a_reply_that_no_call_ends_is_the_last(text: str, answer: Any) -> None:
    assert RELEASED.parse(text, [FIRST]) == Answer(text.strip() if answer is None else answer)


def test_as_released_the_last_call_counts_also_after_an_answer() -> None:
    text = "\\boxed{A}" + call([0, 0, 1, 1]) + call([0.1, 0.2, 0.4, 0.5])
    action: Any = RELEASED.parse(text, [FIRST])
    assert emitted(action) == ((0.1, 0.2, 0.4, 0.5), 0)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (call([0.9, 0.2, 0.1, 0.3]), "Coordinate 'right' is less than 'left'"),
        (call([0.1, 0.9, 0.4, 0.1]), "Coordinate 'lower' is less than 'upper'"),
        (call([[0.1, 0.2, 0.4, 0.5]]), "'<' not supported between instances of 'list' and 'int'"),
        (call([0.1, 0.2, 0.4]), "list index out of range"),
        (call([0.1, 0.2, 0.4, 0.5], "1"), "unsupported operand type(s) for -: 'str' and 'int'"),
        (call([0.1, 0.2, 0.4, 0.5], -1), "list index out of range"),
        ('<tool_call>{"arguments": {}}</tool_call>', "'name'"),
        ('<tool_call>{"name": "zoom", "arguments": {}}</tool_call>', "'zoom'"),
        (
            call([0.1, 0.2, 0.4, 0.5], 2),
            "Execution Error: Incorrect `target_image` argument in `crop_image_normalized` "
            "operation. You can only pick an image within [1,1]",
        ),
    ],
)
def test_as_released_errors_have_the_words_of_the_script(text: str, error: str) -> None:
    action: Any = RELEASED.parse(text, [FIRST])
    assert action.detail == f"\nExecution error:\n{error}\n"


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
