from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from shown import FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Context, Crop
from lfpc.episode import Stop, episode, play
from lfpc.images import View, crop_view, global_view, open_picture
from lfpc.looks import original_look
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import protocol_named
from lfpc.protocols.ergo import ERGO, LAST, SECOND, SYSTEM
from lfpc.protocols.ergo import FIRST as HINT
from lfpc.samples import Sample

ZOOM = "<think>The van is on the right.</think><zoom>[100, 0, 200, 100]</zoom>"
RELEASED = protocol_named("ergo", "as-released")


def test_a_dialogue() -> None:
    question = "Which letter is on the van?\nA. K\nB. L"
    assert talk(ERGO, (ZOOM, RIGHT)) == [
        ("system", (SYSTEM,)),
        ("user", (FIRST, question + HINT)),
        ("assistant", (ZOOM,)),
        ("user", (RIGHT, question + SECOND)),
    ]
    assert ERGO.parse("<think>A K.</think> <answer>A</answer>", [FIRST, RIGHT]) == Answer("A")


def test_boxes_are_pixels_of_the_shown_picture() -> None:
    action = ERGO.parse(ZOOM, [FIRST])
    assert action == Crop(Box(0.5, 0, 1, 1))
    assert emitted(action) == ((100, 0, 200, 100), 0)
    assert ERGO.parse("<zoom>the van at [100, 0, 200, 100]", [FIRST]) == action
    assert ERGO.parse("<answer>K</answer>", [FIRST]) == Answer("K")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<zoom>the van</zoom>", "bad_box"),
        ("<zoom>[0, 0, 9, 9] or [9, 9, 20, 20]</zoom>", "bad_box"),
        ("<zoom>[0, 0, 9]</zoom>", "bad_box"),
        ("<zoom>[0, 0, 0, 9]</zoom>", "empty_box"),
        ("the van", "no_action"),
    ],
)
def test_a_malformed_reply_has_a_reason(text: str, why: str) -> None:
    action = ERGO.parse(text, [FIRST])
    assert reason(action) == why
    assert str(getattr(action, "detail", "")).endswith(LAST)


@pytest.mark.parametrize(
    "text",
    [
        "<zoom>the van</zoom>",
        "<zoom>[0, 0, 9, 9] or [9, 9, 20, 20]</zoom>",
        "<zoom>[0, 0, 9]</zoom>",
        "<zoom>[10.5, 20, 30, 40]</zoom>",
        "<zoom>[-10, 20, 30, 40]</zoom>",
        "<zoom>10, 20, 30, 40</zoom>",
        "<zoom>[10, 20, 30, 40]",
        "[10, 20, 30, 40]",
        "<answer>K</answer>",
        "",
    ],
)
def test_as_released_anything_but_four_whole_numbers_shows_the_whole_picture(text: str) -> None:
    action: Any = RELEASED.parse(text, [FIRST])
    view = crop_view(Image.new("RGB", (4000, 2000)), action.shown, RELEASED.crop)
    assert (action.box, view.cut) == (WHOLE, (0, 0, 4000, 2000))
    # 4000 / 28 is nearest to 143 tokens, 2000 / 28 to 71: the size of the file, not of a crop
    assert view.size == (4004, 1988)


def test_as_released_a_region_is_cut_in_whole_pixels_towards_the_top_left() -> None:
    odd = View(Image.new("RGB", (1148, 868)), WHOLE, (2000, 1500))
    text = "<zoom>around [137, 76, 1200, 368].</zoom><zoom>[1, 2, 3, 4]</zoom>"
    action: Any = RELEASED.parse(text, [odd])
    # 137 * 2000 / 1148 = 238.7, 76 * 1500 / 868 = 131.3, at most 2000, 368 * 1500 / 868 = 635.9
    assert action.shown.cut == (238, 131, 2000, 635)
    assert emitted(action) == ((137, 76, 1200, 368), 0)


def test_as_released_a_crop_above_the_maximum_is_rounded_and_not_cut_down() -> None:
    full = View(Image.new("RGB", (2000, 1500)), WHOLE, (2000, 1500))
    action: Any = RELEASED.parse("<zoom>[0, 0, 2000, 1500]</zoom>", [full])
    # sqrt(2000 * 1500 / (1280 * 784)) = 1.729: 2000 / 1.729 / 28 = 41.3, 1500 / 1.729 / 28 = 30.98
    assert action.shown.sides == (41 * 28, 31 * 28)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<zoom>[90, 20, 30, 40]</zoom>", "ValueError: Coordinate 'right' is less than 'left'"),
        ("<zoom>[0, 0, 0, 1]</zoom>", "ZeroDivisionError: "),
    ],
)
def test_as_released_a_region_that_stops_the_script_is_malformed(text: str, error: str) -> None:
    action: Any = RELEASED.parse(text, [FIRST])
    assert action.detail.startswith(error)
    assert action.detail.endswith(LAST)


def test_as_released_the_options_are_hidden_until_the_region_is_shown() -> None:
    question = "Which letter is on the van?"
    messages = talk(RELEASED, (ZOOM, RIGHT))
    assert messages[1] == ("user", (FIRST, question + HINT))
    assert messages[3] == ("user", (RIGHT, f"{question}\nA. K\nB. L{SECOND}"))
    context = Context(question, ("K", "L"), FIRST, ())
    assert "A. K" in str(RELEASED.messages(context, tools=False)[1].parts[1])


def test_as_released_the_second_reply_is_the_answer() -> None:
    assert RELEASED.parse("B", [FIRST, RIGHT]) == Answer("B")
    assert RELEASED.parse(ZOOM + "<answer> K </answer>", [FIRST, RIGHT]) == Answer("K")


def test_once_a_region_was_shown_only_an_answer_counts() -> None:
    assert reason(ERGO.parse(ZOOM, [FIRST, RIGHT])) == "no_action"
    assert ERGO.parse(ZOOM + "<answer>K</answer>", [FIRST, RIGHT]) == Answer("K")


def test_an_episode_has_two_turns_whatever_the_caller_allows(sample: Callable[..., Sample]) -> None:
    one = sample()
    first = global_view(open_picture(one.image), 16)
    script = ["<zoom>[0, 0, 28, 28]</zoom>"]
    (done,) = play(
        [episode(one, first, look=original_look(ERGO.crop), protocol=ERGO, max_turns=6)],
        ScriptedPolicy(script),
    )
    assert (done.stop, len(done.turns)) == (Stop.MAX_TURNS, 2)
    assert [reason(turn.action) for turn in done.turns] == [None, "no_action"]
