import json
from typing import Any

import pytest
from shown import CORNER, FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import Box
from lfpc.dialogue import Answer, Crop
from lfpc.protocols import protocol_named
from lfpc.protocols.mini_o3 import MINI_O3, SYSTEM

RELEASED = protocol_named("mini_o3", "as-released")

FIRST_CALL = (
    '<think>The van is on the right.</think><grounding>{"bbox_2d": [0.5, 0.0, 1.0, 1.0], '
    '"source": "original_image"}</grounding>'
)
SECOND_CALL = (
    '<think>Closer.</think><grounding>{"bbox_2d": [0.5, 0.5, 1.0, 1.0], "source": '
    '"observation_1"}</grounding>'
)


def call(box: Any, source: Any) -> str:
    return f"<grounding>{json.dumps({'bbox_2d': box, 'source': source})}</grounding>"


def test_a_dialogue_in_which_a_crop_is_cut_from_a_crop() -> None:
    messages = talk(MINI_O3, (FIRST_CALL, RIGHT), (SECOND_CALL, CORNER))
    assert [role for role, _ in messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert messages[0] == ("system", (SYSTEM,))
    assert messages[1] == ("user", (FIRST, "Which letter is on the van?\nA. K\nB. L"))
    assert messages[2] == ("assistant", (FIRST_CALL,))
    before, view, after = messages[3][1]
    assert (before, view) == ("This is what you zoomed in on (observation_1):\n", RIGHT)
    assert "<grounding>" in str(after)
    assert messages[5][1][:2] == ("This is what you zoomed in on (observation_2):\n", CORNER)
    assert MINI_O3.parse("<think>A K.</think><answer>K</answer>", [FIRST, RIGHT, CORNER]) == Answer(
        "K"
    )


def test_a_box_is_relative_to_the_picture_it_names() -> None:
    # the lower right quarter of the right half: x from 0.5 + 0.5 * 0.5
    action = MINI_O3.parse(SECOND_CALL, [FIRST, RIGHT])
    assert action == Crop(Box(0.75, 0.5, 1, 1))
    assert emitted(action) == ((0.5, 0.5, 1, 1), 1)
    # and of that, the left half: x from 0.75 to 0.75 + 0.25 * 0.5
    assert MINI_O3.parse(call([0, 0, 0.5, 1], "observation_2"), [FIRST, RIGHT, CORNER]) == Crop(
        Box(0.75, 0.5, 0.875, 1)
    )
    assert MINI_O3.parse(call([0.5, 0.5, 1, 1], "observation_0"), [FIRST, RIGHT]) == Crop(
        Box(0.5, 0.5, 1, 1)
    )


def test_crops_are_numbered_by_what_was_shown_not_by_turns() -> None:
    messages = talk(MINI_O3, ("hm", None), (FIRST_CALL, RIGHT))
    assert messages[-1][1][0] == "This is what you zoomed in on (observation_1):\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (call([0, 0, 1, 1], "observation_2"), "bad_source"),
        (call([0, 0, 1, 1], "observation_" + "9" * 5000), "bad_source"),
        (call([0, 0, 1, 1], "observation_-1"), "bad_source"),
        (call([0, 0, 1, 1], 1), "bad_source"),
        ('<grounding>{"bbox_2d": [0, 0, 1, 1]}</grounding>', "bad_source"),
        ("<grounding>[0, 0, 1, 1]</grounding>", "bad_box"),
        ("<grounding>the van</grounding>", "bad_json"),
        (call([0, 0, 1], "original_image"), "bad_box"),
        (call([1.2, 0, 1.5, 1], "original_image"), "empty_box"),
        (call([0, 0, 1, 0.005], "original_image"), "too_narrow"),
        ("<think>hm</think>", "no_action"),
    ],
)
def test_a_malformed_reply_has_a_reason(text: str, why: str) -> None:
    assert reason(MINI_O3.parse(text, [FIRST, RIGHT])) == why


def test_the_stop_text_belongs_to_the_reply_and_may_be_missing() -> None:
    assert "</grounding>" in MINI_O3.stop
    assert MINI_O3.parse(FIRST_CALL.removesuffix("</grounding>"), [FIRST]) == Crop(
        Box(0.5, 0, 1, 1)
    )


def released(box: Any, source: str = "original_image") -> Any:
    text = f'<grounding>{{"bbox_2d": {json.dumps(box)}, "source": "{source}"}}</grounding>'
    return RELEASED.parse(text, [FIRST, RIGHT])


@pytest.mark.parametrize(
    ("box", "cut", "sides"),
    [
        # towards zero, the last row and column left out, 2,000,000 pixels at most
        ([0.10009, 0.1009, 0.5, 0.5], (400, 201, 2000, 1000), (1600, 799)),
        ([-0.1, -0.2, 1.2, 1.0], (0, 0, 3999, 1999), (2000, 999)),
        # 100 x 100 pixels by sqrt(40,000 / 10,000)
        ([0.1, 0.1, 0.125, 0.15], (400, 200, 500, 300), (200, 200)),
        # 400 x 4 by 5 to 2000 x 20, then by 28 / 20 and one more
        ([0.1, 0.1, 0.2, 0.102], (400, 200, 800, 204), (2801, 29)),
    ],
)
def test_as_released_boxes_are_cut_towards_zero(box: Any, cut: Any, sides: Any) -> None:
    action = released(box)
    assert (action.shown.cut, action.shown.sides) == (cut, sides)


def test_as_released_a_crop_of_a_crop_is_in_pixels_of_the_original() -> None:
    action = released([0.1, 0.25, 0.6, 0.5], "observation_1")
    # of the right half, 2000 x 2000
    assert (action.source, action.shown.cut) == (1, (2200, 500, 3200, 1000))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            '<grounding>{"bbox_2d": [0.1, 0.2, 0.4, 0.5]}</grounding>',
            "'NoneType' object has no attribute 'group'",
        ),
        (
            '<grounding>{"source": "original_image", "bbox_2d": [0.1, 0.2, 0.4, 0.5]}</grounding>',
            "'NoneType' object has no attribute 'group'",
        ),
        (
            '<grounding>{"bbox_2d": [0.5, 0.2, 0.4, 0.5], "source": "original_image"}</grounding>',
            "The bounding box is not valid in width: [2000, 400, 1600, 1000]",
        ),
        (
            '<grounding>{"bbox_2d": [0.1, 0.2, 0.4], "source": "original_image"}</grounding>',
            "",
        ),
        (
            '<grounding>{"bbox_2d": [0.1, 0.2, 0.4, 0.5], "source": "observation_2"}</grounding>',
            'Error in predicting the source observation: "observation_2".',
        ),
        (
            '<grounding>{"bbox_2d": [0.1, 0.2, 0.4, 0.5], "source": "Picture 1"}</grounding>',
            "The 'source' argument \"Picture 1\" does not match the pattern "
            "'observation_([0-9]*)'.",
        ),
        (
            '<grounding>{"bbox_2d": [0, 0.2, 1, 0.2049], "source": "original_image"}</grounding>',
            "The absolute aspect ratio of the bounding box exceeds 200, which is too large.",
        ),
        (  # an address would differ from run to run
            '<grounding>{"bbox_2d": box, "source": "original_image"}</grounding>',
            "malformed node or string on line 1: <ast.Name object>",
        ),
    ],
)
def test_as_released_errors_have_the_words_of_the_rollout(text: str, error: str) -> None:
    action: Any = RELEASED.parse(text, [FIRST, RIGHT])
    assert action.detail == f"ERROR occurs during grounding. Error Information: {error}.\n"


def test_as_released_the_last_closed_grounding_counts_also_before_an_answer() -> None:
    one = '<grounding>{"bbox_2d": [0.1, 0.2, 0.4, 0.5], "source": "original_image"}</grounding>'
    two = one.replace("0.1", "0.3")
    action: Any = RELEASED.parse(one + two + "<answer>K</answer>", [FIRST])
    assert emitted(action) == ((0.3, 0.2, 0.4, 0.5), 0)
    for text, answer in (("<answer>K</answer>", "K"), (one.removesuffix("</grounding>"), "")):
        assert RELEASED.parse(text, [FIRST]) == Answer(answer)
