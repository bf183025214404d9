import json
import re
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from fuzz_parsers import ALL, SEEDS, SHOWN, TOKENS, check, one_input, parse, run
from hypothesis import given
from hypothesis import strategies as st
from shown import FIRST

from lfpc.boxes import Box
from lfpc.dialogue import Answer, Context, Crop, Malformed, Reason
from lfpc.errors import ConfigError
from lfpc.protocols import PROTOCOLS, protocol_named
from lfpc.protocols.base import LONGEST_REPLY
from lfpc.report.evidence import Origin

DOCS = (Path(__file__).parents[1] / "docs" / "protocols.md").read_text(encoding="utf-8")
KNOWN = tuple(PROTOCOLS.values())
TAGS = (
    "<tool_call>",
    "<grounding>",
    "<zoom>",
    "<code>",
    "<answer>",
    "<tool_call><function=image_zoom_in_tool><parameter=bbox_2d>",
)


def table(heading: str) -> dict[str, dict[str, str]]:
    """The tables after a heading of docs/protocols.md: first cell of a row -> its cells by
    column, of all tables."""
    found: dict[str, dict[str, str]] = {}
    for part in DOCS.split(heading)[1].split("\n## ")[0].split("\n\n"):
        lines = [line for line in part.splitlines() if line.startswith("|")]
        if lines:
            head, _, *rows = (
                [cell.strip() for cell in line.strip("|").split("|")] for line in lines
            )
            for row in rows:
                found.setdefault(row[0].strip("`"), {}).update(zip(head, row, strict=True))
    return found


def test_the_index_names_every_protocol_by_its_own_name() -> None:
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    assert protocol_named("mini_o3") is PROTOCOLS["mini_o3"]


def test_an_unknown_name_or_reading_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="unknown protocol 'gpt'; known are qwen2_5_vl"):
        protocol_named("gpt")
    with pytest.raises(ConfigError, match="qwen2_5_vl has no `coords` as-released"):
        protocol_named("qwen2_5_vl", "as-released")


@pytest.mark.parametrize("protocol", ALL, ids=[f"{p.name}-{p.coords}" for p in ALL])
def test_a_tag_that_is_repeated_without_end_is_read_in_bounded_time(protocol: Any) -> None:
    for tag in (*TAGS, '<grounding>{"bbox_2d": ', '"source": "', "[1, 2, "):
        for views in (SHOWN[0], SHOWN[1]):
            began = time.monotonic()
            protocol.parse(tag * (LONGEST_REPLY // len(tag)), views)
            assert time.monotonic() - began < 2


def test_the_documented_dialogue_is_the_records() -> None:
    rows = table("## Messages")
    assert list(rows) == list(PROTOCOLS)
    for name, row in rows.items():
        protocol = PROTOCOLS[name]
        assert row["tool is described by"].startswith(
            "chat template" if protocol.native_tools else "system message"
        )
        assert row["crop comes in a message of"] == protocol.observation_role
        assert tuple(re.findall(r"`([^`]+)`", row["generation stops after"])) == protocol.stop
        assert row["replies"] == str(protocol.turns or "any")


def test_the_documented_crops_are_the_records() -> None:
    rows = table("## Boxes")
    assert list(rows) == list(PROTOCOLS)
    for name, row in rows.items():
        crop = PROTOCOLS[name].crop
        assert row["visual token"] == f"{crop.factor} px"
        assert row["crop tokens"] == f"{crop.min_tokens} to {crop.max_tokens}"
        assert bool(row["`as-released`"]) == (PROTOCOLS[name].as_released is not None)


def test_the_documented_reasons_are_all_reasons() -> None:
    assert list(table("## Malformed replies")) == [reason.value for reason in Reason]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_without_the_tool_nothing_speaks_of_it(protocol: Any) -> None:
    context = Context("Which letter?", ("K", "L"), FIRST, ())
    system, user = protocol.messages(context, tools=False)
    assert (system.role, system.parts) == ("system", (protocol.direct_system,))
    assert (user.role, user.parts) == ("user", (FIRST, protocol.ask("Which letter?", ("K", "L"))))
    for word in ("tool_call", "zoom", "crop", "grounding", "<code>"):
        assert word not in protocol.direct_system + str(user.parts[1])


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_reply_reads_the_same_with_and_without_its_stop_text(protocol: Any) -> None:
    stopped = 0
    for text in SEEDS:
        for stop in protocol.stop:
            if text.endswith(stop) and not isinstance(protocol.parse(text, SHOWN[1]), Malformed):
                assert protocol.parse(text.removesuffix(stop), SHOWN[1]) == protocol.parse(
                    text, SHOWN[1]
                )
                stopped += 1
    assert stopped


@pytest.mark.parametrize("protocol", ALL, ids=[f"{p.name}-{p.parser.__name__}" for p in ALL])
@pytest.mark.parametrize(
    "body",
    [
        "",
        "\0" * 1000,
        "\ud800 \udfff",
        "[" * 100_000,
        '{"name":' * 12_000,
        "{" * 50_000 + "}" * 50_000,
        '{"bbox_2d": [NaN, Infinity, -Infinity, 1e999], "source": "original_image", '
        '"target_image": 1}',
        '{"bbox_2d": [' + "9" * 4000 + ", 0, 1, 1]}",
        '{"bbox_2d": [' + "9" * 5000 + ", 0, 1, 1]}",
        "[1e-320, 1e-320, 2e-320, 2e-320]",
        "[1e308, 1e308, -1e308, -1e308]",
        "<tool_call>" * 10_000,
        "<function=" * 10_000,
        "<parameter=a>" * 8_000,
        "\\boxed{" * 14_000,
        "{'a': " * 16_000,
        "import os\nos.system('rm -rf /')",
        "__import__('shutil').rmtree('/')",
    ],
    ids=lambda body: f"{len(body)}-{body[:12]!r}",
)
def test_hostile_replies_become_sound_actions(protocol: Any, body: str) -> None:
    for tag in ("", *TAGS):
        parse(tag + body, protocol, SHOWN[1])


def test_what_lies_beyond_the_longest_reply_is_not_looked_at() -> None:
    for protocol in ALL:
        action = protocol.parse(
            " " * LONGEST_REPLY + SEEDS[0] + SEEDS[3] + SEEDS[5] + SEEDS[6] + SEEDS[8], SHOWN[1]
        )
        # a published script may take the blanks for the answer
        assert isinstance(action, Malformed) or (protocol not in KNOWN and action == Answer(""))


@given(
    st.sampled_from(ALL),
    st.sampled_from(SHOWN),
    st.text()
    | st.lists(st.sampled_from([*TAGS, *TOKENS, *SEEDS]) | st.text(max_size=4), max_size=12).map(
        "".join
    ),
)
def test_any_text_is_a_sound_action(protocol: Any, views: Any, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(protocol.parse(text, views), views, released=protocol.coords == "as-released")


@given(st.binary(max_size=200))
def test_any_bytes_drive_the_fuzzers_function(data: bytes) -> None:
    one_input(data)


def test_mutated_replies_reach_every_kind_of_action() -> None:
    counts = run(4000, seed=3)
    assert {
        "Crop",
        "Answer",
        "bad_json",
        "bad_box",
        "empty_box",
        "bad_source",
        "bad_code",
        "unknown_tool",
        "no_action",
    } <= set(counts)
    assert set(counts) <= {"Crop", "Answer", *Reason}


@given(
    left=st.floats(0, 0.6),
    top=st.floats(0, 0.6),
    width=st.floats(0.35, 0.4),
    height=st.floats(0.35, 0.4),
)
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_written_call_asks_for_its_box(
    protocol: Any, left: float, top: float, width: float, height: float
) -> None:
    box = Box(left, top, left + width, top + height)
    action = protocol.parse(protocol.write_call(box, FIRST), (FIRST,))
    assert isinstance(action, Crop)
    assert action.box.corners == pytest.approx(
        box.corners, abs=0.0101
    )  # a pixel of the first view, which is 200 x 100


def written(name: str) -> str:
    write_call: Any = PROTOCOLS[name].write_call
    return write_call(Box(0.1, 0.2, 0.9, 0.8), FIRST)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "thyme"])
@pytest.mark.parametrize("more", ['{"name": "again"}', " and more", ", {}", "]"])
def test_a_call_with_more_beside_it_is_read_but_not_exact(name: str, more: str) -> None:
    call = written(name)
    asked = PROTOCOLS[name].parse(call, [FIRST])
    assert isinstance(asked, Crop)
    assert asked.exact
    stacked = PROTOCOLS[name].parse(re.sub(r"\s*(</\w+>)$", rf"{more}\1", call), [FIRST])
    assert stacked == asked
    assert isinstance(stacked, Crop)
    assert not stacked.exact


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_call_that_is_not_closed_or_has_more_behind_it_is_read_but_not_exact(name: str) -> None:
    call = written(name)
    parse = PROTOCOLS[name].parse
    exact = parse(f"<think>Where?</think>\n{call}\n", [FIRST])
    odd = [re.sub(r"</\w+>$", "", call), f"{call} and more", 2 * call]
    if PROTOCOLS[name].thinks:
        odd.append(f"<think>Where? {call}")
    found = [parse(text, [FIRST]) for text in odd]
    assert [exact] * len(odd) == found
    assert isinstance(exact, Crop)
    assert exact.exact
    assert not any(one.exact for one in found if isinstance(one, Crop))


TOOL = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [50, 50, 150, 90]}}'
BOX = "[50, 50, 150, 90]"
AS_TEXT = json.dumps(json.dumps({"bbox_2d": [50, 50, 150, 90]}))
NOT_EXACT = {
    "the arguments twice": TOOL.replace("}}", '}, "arguments": {"bbox_2d": [50, 50, 150, 90]}}'),
    "the box twice": TOOL.replace("]}}", f'], "bbox_2d": {BOX}}}}}'),
    "no number of JSON": TOOL.replace("]}}", '], "label": NaN}}'),
    "the arguments as text": TOOL.replace(f'{{"bbox_2d": {BOX}}}', AS_TEXT),
    "several boxes in a text": TOOL.replace(BOX, f'"{BOX} {BOX}"'),
    "a list in a list": TOOL.replace(BOX, f"[{BOX}]"),
    "a comma before a bracket": TOOL.replace("}}", ",}}"),
}
LENIENT = ("qwen3_vl", "deepeyes", "chain_of_focus")


@pytest.mark.parametrize("body", NOT_EXACT.values(), ids=NOT_EXACT)
@pytest.mark.parametrize("name", LENIENT)
def test_a_call_that_needs_more_than_json_is_not_exact(name: str, body: str) -> None:
    parse = PROTOCOLS[name].parse
    plain, odd = (parse(f"<tool_call>\n{one}\n</tool_call>", [FIRST]) for one in (TOOL, body))
    assert isinstance(plain, Crop)
    assert isinstance(odd, Crop)
    assert odd == plain
    assert (plain.exact, odd.exact) == (True, False)


def test_a_trained_call_with_a_key_twice_is_not_exact() -> None:
    body = NOT_EXACT["the box twice"]
    crop = PROTOCOLS["qwen2_5_vl"].parse(f"<tool_call>{body}</tool_call>", [FIRST])
    assert isinstance(crop, Crop)
    assert not crop.exact


XML_BOX = f"<parameter=bbox_2d>\n{BOX}\n</parameter>"
XML = f"<function=image_zoom_in_tool>\n{XML_BOX}\n</function>"
LABEL = "<parameter=label>\na sign\n</parameter>\n</function>"


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        (f"<tool_call>\n{XML}\n</tool_call>", True),
        (f"<tool_call>{XML.replace('</function>', LABEL)}</tool_call>", True),
        (f"<tool_call>{2 * XML}</tool_call>", False),
        (f"<tool_call>{XML.replace(XML_BOX, 2 * XML_BOX)}</tool_call>", False),
        (f"<tool_call>{XML.replace(BOX, f'{BOX} {BOX}')}</tool_call>", False),
        (f"<tool_call>{XML} more</tool_call>", False),
        (f"<tool_call>{XML.replace('</function>', '')}</tool_call>", False),
        (f"<tool_call>{XML.replace('</parameter>', '')}</tool_call>", False),
        (XML, False),
        (TOOL, False),
    ],
)
def test_a_call_in_xml_is_exact_if_it_is_one_closed_function(text: str, exact: bool) -> None:
    crop = PROTOCOLS["qwen3_vl"].parse(text, [FIRST])
    assert isinstance(crop, Crop)
    assert crop.emitted == (50, 50, 150, 90)
    assert crop.exact is exact


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "pixel_reasoner"])
def test_an_answer_is_exact_if_it_is_closed_and_alone(name: str) -> None:
    odd = ["<answer>K", "<answer>K</answer> and more"]
    if name == "deepeyes":
        odd.append(f"<tool_call>{TOOL}<answer>K</answer>")
    if PROTOCOLS[name].thinks:
        odd.append("<think>Well, <answer>K</answer>")
    texts = ["<think>It says K.</think>\n<answer>\nK\n</answer>\n", *odd]
    found = [PROTOCOLS[name].parse(text, [FIRST]) for text in texts]
    assert found == [Answer("K")] * len(texts)
    assert [one.exact for one in found if isinstance(one, Answer)] == [True] + [False] * len(odd)


def test_a_report_cuts_crops_by_the_rules_of_the_reading() -> None:
    config = {"protocol": "ergo", "coords": "as-released"}
    assert Origin(config, {}).rules == protocol_named("ergo", "as-released").crop
    assert Origin({"protocol": "ergo"}, {}).rules == PROTOCOLS["ergo"].crop
