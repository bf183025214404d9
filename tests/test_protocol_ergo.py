from collections.abc import Callable

import pytest
from shown import FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Crop
from lfpc.episode import Stop, episode, play
from lfpc.images import global_view, open_picture
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
def test_a_malformed_reply_has_a_reason_and_as_released_shows_everything(
    text: str, why: str
) -> None:
    action = ERGO.parse(text, [FIRST])
    assert reason(action) == why
    assert str(getattr(action, "detail", "")).endswith(LAST)
    assert RELEASED.parse(text, [FIRST]) == Crop(WHOLE)


def test_once_a_region_was_shown_only_an_answer_counts() -> None:
    for protocol in (ERGO, RELEASED):
        assert reason(protocol.parse(ZOOM, [FIRST, RIGHT])) == "no_action"
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
