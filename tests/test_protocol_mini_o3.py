import json
from typing import Any

import pytest
from shown import CORNER, FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import Box
from lfpc.dialogue import Answer, Crop
from lfpc.protocols.mini_o3 import MINI_O3, SYSTEM

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
