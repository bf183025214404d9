import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import shown
from shown import FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import Box
from lfpc.dialogue import Answer, Crop
from lfpc.episode import episode, play
from lfpc.images import global_view, open_picture, visual_tokens
from lfpc.looks import original_look
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.protocols.qwen3_vl import (
    QWEN3_VL,
    QWEN3_VL_TEXT,
    QWEN3_VL_USER,
    SCHEMA,
    SYSTEM,
    SYSTEM_WITH_TOOL,
    TOOL,
    call_text,
)
from lfpc.samples import Sample

CROP = Crop(Box(0.25, 0.5, 0.75, 1))
XML = """<tool_call>
<function=image_zoom_in_tool>
<parameter=bbox_2d>
[250, 500, 750, 1000]
</parameter>
<parameter=label>
the van
</parameter>
</function>
</tool_call>"""


def call(box: Any = (250, 500, 750, 1000), **more: Any) -> str:
    return call_text(TOOL, json.dumps({"bbox_2d": box, **more}))


def read(text: str) -> Any:
    return QWEN3_VL.parse(text, [FIRST])


@pytest.mark.parametrize(
    "text",
    [
        "The van is small, so I zoom in.\n" + call(label="van"),
        call(img_idx=0),
        call(img_idx="0"),
        call(img_idx=None),
        call([250.0, 500, 750, 1000.0]),
        call([750, 1000, 250, 500]),
        call([[250, 500, 750, 1000]]),
        call("[250, 500, 750, 1000]"),
        call_text(TOOL, json.dumps(json.dumps({"bbox_2d": [250, 500, 750, 1000]}))),
        call().removesuffix("\n</tool_call>"),
        call() + call([0, 0, 1, 1]) + "<answer>K</answer>",
        "<tool_call>{'name': 'image_zoom_in_tool', 'arguments': {'bbox_2d': [250, 500, "
        "750, 1000,]}}</tool_call>",
        '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [250, 500, 750, 1000]',
        '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [250, 500, '
        "750, 1000}}</tool_call>",
        XML,
        XML.removesuffix("</tool_call>").removeprefix("<tool_call>"),
        XML[: XML.index("\n</parameter>\n<parameter=label>")],
        "<think>Where is it?" + call([0, 0, 9, 9]) + "</think>" + call(),
        "so I look there</think>\n\n" + XML,
        '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [250, 500, 750, 1000]}}',
        '```json\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [250, 500, 750, '
        "1000]}}\n```",
    ],
)
def test_a_call_in_any_of_its_forms_is_read_in_thousandths_of_the_original(text: str) -> None:
    assert read(text) == CROP


def test_numbers_beyond_the_frame_are_cut_off_and_kept_as_written() -> None:
    action = read(call([-5, 500, 750, 1003]))
    assert action == Crop(Box(0, 0.5, 0.75, 1))
    assert emitted(action) == ((-5, 500, 750, 1003), 0)


def test_a_box_below_32_pixels_of_the_original_is_shown_wider() -> None:
    # 1/1000 of 4000 x 2000 is 4 x 2 pixels; 32 pixels are 0.008 across and 0.016 down
    middle = read(call([500, 500, 501, 501]))
    assert middle.box == Box(0.5, 0.5, 0.501, 0.501)
    assert middle.shown.corners == pytest.approx((0.4965, 0.4925, 0.5045, 0.5085))
    assert read(call([0, 0, 1, 1])).shown == Box(0, 0, 0.008, 0.016)
    assert read(call([999, 0, 1000, 500])).shown.corners == pytest.approx((0.992, 0, 1, 0.5))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The letter is K.", "The letter is K."),
        ("<think>A van, a K.</think>\n\nK", "K"),
        ("I think <answer>K</answer>", "K"),
        ("<answer>K</answer>" + call(), "K"),
        ('{"answer": "K"}', '{"answer": "K"}'),
        ("{K}", "{K}"),
    ],
)
def test_without_a_call_the_text_is_the_answer(text: str, said: str) -> None:
    assert read(text) == Answer(said)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty_answer"),
        ("<think>no</think>  ", "empty_answer"),
        ("<think>It may be that", "no_action"),
        ("<tool_call>zoom</tool_call>", "bad_json"),
        (
            '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [250, 500, 750, 10',
            "bad_json",
        ),
        ("<tool_call><function=></tool_call>", "bad_json"),
        (XML.replace(TOOL, "rotate"), "unknown_tool"),
        (call_text("rotate", "{}"), "unknown_tool"),
        ('{"name": "rotate", "arguments": {}}', "unknown_tool"),
        (XML.replace("[250, 500, 750, 1000]", "the van"), "bad_box"),
        (call([250, 500, 750]), "bad_box"),
        (call(None), "bad_box"),
        (call_text(TOOL, "null"), "bad_box"),
        (call([250, 500, 250, 900]), "empty_box"),
        (call([1200, 500, 1300, 900]), "empty_box"),
        (call([float("nan"), 0, 1, 1]), "empty_box"),
        (call(img_idx=1), "bad_source"),
        (call(img_idx="van"), "bad_source"),
    ],
)
def test_a_malformed_reply_has_a_reason(text: str, why: str) -> None:
    assert reason(read(text)) == why


def test_img_idx_does_not_count_crops() -> None:
    assert reason(QWEN3_VL.parse(call(img_idx=1), [FIRST, RIGHT])) == "bad_source"
    assert QWEN3_VL.parse(call(), [FIRST, RIGHT]) == CROP


def test_the_three_records_differ_in_who_describes_the_tool_and_who_shows_the_crop() -> None:
    for protocol, system, tools, answer in (
        (QWEN3_VL, SYSTEM, (SCHEMA,), ("tool", (RIGHT,))),
        (
            QWEN3_VL_USER,
            SYSTEM,
            (SCHEMA,),
            ("user", ("<tool_response>", RIGHT, "</tool_response>")),
        ),
        (
            QWEN3_VL_TEXT,
            SYSTEM_WITH_TOOL,
            (),
            ("user", ("<tool_response>", RIGHT, "</tool_response>")),
        ),
    ):
        assert protocol.native_tools == tools
        assert talk(protocol, (call(), RIGHT)) == [
            ("system", (system,)),
            ("user", (FIRST, "Which letter is on the van?\nA. K\nB. L")),
            ("assistant", (call(),)),
            answer,
        ]
    assert call_text(TOOL, '{"bbox_2d": [x1, y1, x2, y2]}') in SYSTEM_WITH_TOOL


def test_tokens_of_this_family_are_32_pixels_wide_all_the_way(
    sample: Callable[..., Sample],
) -> None:
    one = sample()
    first = global_view(open_picture(one.image), 64, factor=QWEN3_VL.factor)
    game = episode(one, first, look=original_look(QWEN3_VL.crop), protocol=QWEN3_VL)
    (done,) = play([game], ScriptedPolicy([call(), "K"]))
    # the 400 x 300 picture: round(12.5) x round(9.375) tokens = 12 x 9 = 108 > 64; beta =
    # sqrt(120000 / 65536) -> 9 x 6 = 54, which the processor would enlarge; 8 x 8 is the nearest of
    # 64 tokens
    assert first.size == (256, 256)
    # its 200 x 150 crop of 6 x 5 tokens is enlarged to at least 256: beta = sqrt(262144 / 30000) ->
    # ceil(18.5) x ceil(13.9)
    assert done.views[1].size == (19 * 32, 14 * 32)
    assert visual_tokens(done.views[1].size, QWEN3_VL.factor) >= 256
    assert done.answer == "K"


def test_the_tool_message_is_one_field_away_from_a_user_message() -> None:
    switched = replace(QWEN3_VL, observation_role="user")
    assert talk(switched, (call(), shown.RIGHT))[-1] == ("user", (RIGHT,))
    assert {"qwen3_vl", "qwen3_vl_user", "qwen3_vl_text"} <= set(PROTOCOLS)
