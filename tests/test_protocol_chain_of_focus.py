import json
from typing import Any

import pytest
from PIL import Image
from shown import FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Crop
from lfpc.images import crop_view
from lfpc.protocols import protocol_named
from lfpc.protocols.chain_of_focus import CHAIN_OF_FOCUS, REMINDER, SYSTEM
from lfpc.protocols.reading import hermes_call

RELEASED = protocol_named("chain_of_focus", "as-released")
QUESTION = "Question: Which letter is on the van?\nA. K\nB. L"


def call(box: Any) -> str:
    return hermes_call("image_zoom_in_tool", {"bbox_2d": box})


CALL = f"<think>The van is small.</think>{call([100, 20, 140, 60])}"


def released(text: str) -> tuple[Any, Any]:
    """Pixels of the 4000 x 2000 original that are cut, and the size they are shown in."""
    action: Any = RELEASED.parse(text, [FIRST, RIGHT])
    view = crop_view(Image.new("RGB", (4000, 2000)), action.shown, RELEASED.crop)
    return view.cut, view.size


def test_a_dialogue() -> None:
    assert talk(CHAIN_OF_FOCUS, (CALL, RIGHT), ("hm", None)) == [
        ("system", (SYSTEM,)),
        ("user", (FIRST, QUESTION + REMINDER)),
        ("assistant", (CALL,)),
        ("user", (RIGHT, REMINDER)),
        ("assistant", ("hm",)),
        ("user", ("Error: There is neither a tool call nor an answer.",)),
    ]
    assert CHAIN_OF_FOCUS.parse("<think>A K.</think><answer> K </answer>", [FIRST]) == Answer("K")
    assert isinstance(CHAIN_OF_FOCUS.parse(CALL + "<answer>K</answer>", [FIRST]), Crop)


def test_boxes_are_pixels_of_the_first_picture_and_shown_half_as_wide_again() -> None:
    for views in ([FIRST], [FIRST, RIGHT]):
        action: Any = CHAIN_OF_FOCUS.parse(CALL, views)
        assert action.box == Box(0.5, 0.2, 0.7, 0.6)
        assert action.shown.corners == pytest.approx((0.45, 0.1, 0.75, 0.7))
    edge: Any = CHAIN_OF_FOCUS.parse(call([0, 0, 40, 100]), [FIRST])
    assert edge.shown.corners == pytest.approx((0, 0, 0.25, 1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (hermes_call("zoom", {"bbox_2d": [1, 2, 3, 4]}), "unknown_tool"),
        (call([1, 2, 3]), "bad_box"),
        (call([10, 10, 10, 40]), "empty_box"),
        ("<answer></answer>", "empty_answer"),
    ],
)
def test_mapped_bad_calls_are_malformed(text: str, why: str) -> None:
    assert reason(CHAIN_OF_FOCUS.parse(text, [FIRST])) == why


@pytest.mark.parametrize(
    ("box", "cut", "size"),
    [
        # widened to 90, 10, 150, 70 of 200 x 100; twice that many pixels are 120 x 120
        ([100, 20, 140, 60], (1800, 200, 3000, 1400), (112, 112)),
        # 96.75, 14.75, 130.25, 48.25 are rounded towards zero; 68 x 68 have 16 tokens at least
        ([102.33, 20.33, 124.67, 42.67], (1920, 280, 2600, 960), (112, 112)),
        ([0, 0, 40, 100], (0, 0, 1000, 2000), (112, 196)),  # cut off at the edges
    ],
)
def test_as_released_a_box_is_cut_in_whole_pixels_as_shown(box: Any, cut: Any, size: Any) -> None:
    assert released(call(box)) == (cut, size)
    assert emitted(RELEASED.parse(call(box), [FIRST])) == (tuple(box), 0)
    assert released(call(box) + call([0, 0, 9, 9]) + "<answer>K</answer>") == (cut, size)


@pytest.mark.parametrize(
    "text",
    [
        call([140, 20, 100, 60]),
        call([-1, 20, 100, 60]),
        call([100, 20, 201, 60]),
        call(["1", "2", "3", "4"]),
        "<tool_call>{'arguments': {}}</tool_call>",
        "<tool_call>not closed",
    ],
)
def test_as_released_an_invalid_box_shows_the_whole_picture_doubled(text: str) -> None:
    assert released(text) == ((0, 0, 4000, 2000), (392, 196))
    action: Any = RELEASED.parse(text, [FIRST])
    assert (action.box.corners, action.emitted) == (WHOLE.corners, ())


@pytest.mark.parametrize(
    "text",
    [
        call([1, 2, 3]),
        call(None),
        call([0.1, 0.1, 0.3, 0.3]),  # without a whole pixel
        call([0, 50.2, 200, 50.7]),
        f"<tool_call>{json.dumps([1])}</tool_call>",
        "<tool_call>{}</tool_call>",
    ],
)
def test_as_released_a_call_that_fails_shows_the_whole_picture_as_it_is(text: str) -> None:
    assert released(text) == ((0, 0, 4000, 2000), (196, 112))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>\n K \n</answer><answer>L</answer>", "K"),
        ("<answer>K\nL</answer> <answer>L</answer>", "L"),
        ("<answer>K", ""),
        ("It is K.", ""),
        ("", ""),
    ],
)
def test_as_released_the_first_tagged_line_is_the_answer(text: str, answer: str) -> None:
    assert RELEASED.parse(text, [FIRST]) == Answer(answer)
