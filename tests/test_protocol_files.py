"""Protocols as TOML files."""

import json
import re
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
from chat_server import ChatServer, text_of
from fuzz_parsers import SEEDS, SHOWN, TOKENS, check
from hypothesis import given
from hypothesis import strategies as st
from shown import CORNER, FIRST, RIGHT, emitted, reason, talk

from lfpc import cli
from lfpc.boxes import Box
from lfpc.dialogue import Answer, Context, Crop, Malformed
from lfpc.errors import ConfigError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.protocol import prompt_hash
from lfpc.images import CropRules
from lfpc.policies.settings import CheckpointSettings, read_settings, write_settings
from lfpc.protocols import PROTOCOLS, ChatProtocol, ProtocolFile, protocol_given, protocol_named
from lfpc.protocols.reply_format import ReplyFormat
from lfpc.protocols.toml import FORMATS, starting_file
from lfpc.report.evidence import Origin
from lfpc.report.model_card import model_card
from lfpc.samples import Sample, write_samples
from lfpc.storage.runs import read_run
from lfpc.storage.typed import config_from_plain, plain

DOCS = Path(__file__).parents[1] / "docs" / "protocols.md"
OWN = """
name = "mine"
base = "qwen2_5_vl"
system = "Zoom with <look>[x1, y1, x2, y2]</look>, thousandths. Then \\\\boxed{answer}."
direct_system = "Answer in \\\\boxed{}."
question = "Q: {question}\\n{options}"
crop_message = "Crop {number} ({width} x {height}): {crop} {question}"

[malformed]
any = "{error} Try again."
bad_box = "Four numbers, please."

[reply]
call = ["<look>", "</look>"]
box = ""
coordinates = "0-1000"
answer = ["\\\\boxed{", "}"]
"""


def built(text: str, folder: Path) -> ChatProtocol:
    """The protocol of a file with this text."""
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return protocol_named(protocol_given(str(file)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("protocols")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_starting_file_writes_the_prompts_of_its_protocol(name: str, tmp_path: Path) -> None:
    ours, own = built(starting_file(name), tmp_path), PROTOCOLS[name]
    for tools in (True, False):
        messages = [
            p.messages(Context("Which?", ("K", "L"), FIRST, ()), tools=tools) for p in (ours, own)
        ]
        assert messages[0] == messages[1]
    turns = [("<answer>", RIGHT), ("nothing", None), ("<answer>", CORNER)]
    assert joined(talk(ours, *turns)) == joined(talk(own, *turns))
    settings = ("stop", "turns", "thinks", "crop", "factor", "observation_role", "whole_turns")
    assert [getattr(ours, one) for one in settings] == [getattr(own, one) for one in settings]
    if name not in FORMATS:
        assert (ours.parser, ours.native_tools) == (own.parser, own.native_tools)
        assert ours.as_released == own.as_released


def written(protocol: ChatProtocol, box: Box) -> str:
    """The protocol's call for a box."""
    assert protocol.write_call
    return protocol.write_call(box, FIRST)


def joined(messages: list) -> list:
    """Messages with neighbouring texts joined."""
    return [
        (role, [part if isinstance(part, str) else id(part) for part in parts if part != ""])
        for role, parts in messages
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_a_reply_format_reads_what_the_protocol_of_the_family_reads(
    name: str, folder: Path
) -> None:
    ours, own = built(starting_file(name), folder), PROTOCOLS[name]

    @given(
        st.sampled_from(SHOWN),
        st.sampled_from(SEEDS)
        | st.lists(st.sampled_from([*TOKENS, *SEEDS]) | st.text(max_size=4), max_size=12).map(
            "".join
        ),
    )
    def same(views, text):
        found, wanted = (protocol.parse(text, views) for protocol in (ours, own))
        check(found, views)
        if name == "mini_o3" and isinstance(wanted, Malformed):  # with errors of its own words
            assert reason(found) == wanted.reason
        else:
            assert found == wanted
        if isinstance(found, Crop):
            assert emitted(found) == emitted(wanted)

    same()
    for box in (Box(0.1, 0.2, 0.5, 0.7), Box(0, 0, 1, 1)):
        assert written(ours, box) == written(own, box)


def test_a_file_of_ones_own_format_is_spoken_and_read(folder: Path) -> None:
    own = built(OWN, folder)
    assert (own.name, own.stop, own.answer_mark) == ("mine", ("</look>",), "\\boxed{")
    with pytest.raises(ConfigError, match="mine has no `coords` as-released: a protocol file"):
        own.with_coords("as-released")
    talked = talk(
        own,
        ("<look>[500, 0, 1000, 1000]</look>", RIGHT),
        ("<look>[1]", None),
        ("hm", None),
        ("I see \\boxed{\\frac{1}{2}}", None),
    )
    assert talked[0] == ("system", (own.system,))
    assert talked[1] == ("user", (FIRST, "Q: Which letter is on the van?\nA. K\nB. L"))
    asked = "Q: Which letter is on the van?\nA. K\nB. L"
    assert talked[3] == ("user", ("Crop 1 (112 x 112): ", RIGHT, f" {asked}"))
    assert talked[5] == ("user", ("Four numbers, please.",))
    assert talked[7][1] == ("Error: There is neither a tool call nor an answer. Try again.",)
    crop = own.parse("<look>[500, 0, 1000, 1000]</look>", (FIRST,))
    assert isinstance(crop, Crop)
    assert crop.box == Box(0.5, 0, 1, 1)
    assert own.parse("I see \\boxed{\\frac{1}{2}}", (FIRST,)) == Answer("\\frac{1}{2}")
    assert own.parse(written(own, Box(0.25, 0.5, 0.75, 1)), (FIRST,)) == Crop(
        Box(0.25, 0.5, 0.75, 1)
    )
    assert own.ask("a {options} b", ()) == "Q: a {options} b"


@pytest.mark.parametrize("answer", ['["\\\\boxed{", "}"]', '["<answer>", "</answer>"]'])
def test_hostile_replies_are_read_in_bounded_time(answer: str, folder: Path) -> None:
    text = OWN.replace('box = ""', 'box = "a.b"\npicture = "p"\ncrop_name = "x{number}"')
    own = built(text.replace('["\\\\boxed{", "}"]', answer), folder)
    for one in ("<look>", "</look>", "\\boxed{", "<answer>", '{"a":', "[", "{", "9", "\\ud800"):
        began = time.monotonic()
        for tag in ("", "<look>", '<look>{"a": {"b": [0, 0, 1, 1]}, "p": "x'):
            check(own.parse(tag + one * (100_000 // len(one)), SHOWN[1]), SHOWN[1])
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("coordinates", ["shown", "0-1", "0-1000", "original"])
def test_every_unit_of_boxes_comes_back_as_it_was_written(coordinates: str, folder: Path) -> None:
    own = built(OWN.replace('"0-1000"', f'"{coordinates}"'), folder)
    box = Box(0.25, 0.5, 0.75, 1)
    crop = own.parse(written(own, box), (FIRST,))
    assert isinstance(crop, Crop)
    assert crop.box == box
    named = OWN.replace('box = ""', 'box = "b"\npicture = "n"\ncrop_name = "{picture}"')
    own = built(named.replace('"0-1000"', f'"{coordinates}"'), folder)
    whole = {"shown": 112, "0-1": 1, "0-1000": 1000, "original": 2000}[coordinates]
    call = json.dumps({"b": [0, 0, whole / 2, whole], "n": 2})
    crop = own.parse(f"<look>{call}</look>", (FIRST, RIGHT))
    assert isinstance(crop, Crop)
    assert (crop.box, crop.source) == (Box(0.5, 0, 0.75, 1), 1)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "mine"', "", r"'name' is missing"),
        ('"mine"', '"ergo"', "'name' is that of a built-in protocol, ergo"),
        ('"qwen2_5_vl"', '"qwen25_vl"', "unknown protocol 'qwen25_vl'.*did you mean qwen2_5_vl"),
        ("question =", "qestion =", "unknown key 'qestion'; did you mean 'question'"),
        ("Q: {question}", "Q: {qestion}", r"\{qestion\}; did you mean \{question\}\?"),
        ("Q: {question}", "Q:", r"'question' must contain \{question\}"),
        (": {crop}", ":", r"'crop_message' must contain \{crop\} once"),
        ('"0-1000"', '"thousand"', "reply.coordinates: 'thousand' should be 'shown', '0-1'"),
        ('"</look>"]', '""]', "reply: 'call' must be two texts that are not empty"),
        ('["<look>", "</look>"]', '["<look>"]', r"reply.call\[1\]: is missing"),
        ("[malformed]", "max_turns = 0\n[malformed]", "'max_turns' must be at least 1, got 0"),
        ("bad_box", "badbox", "malformed: unknown key 'badbox'; did you mean 'bad_box'"),
        ("[reply]", "[reply", "not a TOML file .*line 13"),
        ("\\n{options}", "", r"'question' must contain \{options\}"),
        ('name = "mine"', 'name = "a\\nb"', "'name' must be one line of text"),
        ("[malformed]", 'stop = [""]\n[malformed]', "'stop' has an empty text"),
        ("[malformed]", f"[malformed{'.a' * 20_000}]", "its tables nest too deep"),
        ("[malformed]", f"stop = {'[' * 400}{']' * 400}\n[malformed]", r"recursion|nest|should be"),
        ('["<look>", ', '["\\\\boxed{", ', "'call' and 'answer' begin alike"),
        ('box = ""', 'box = "b."', "must be keys joined by single dots"),
        ('box = ""', 'box = "name"\ntool = "look"', "cannot hold both 'name' and 'name'"),
        ('box = ""', 'box = "b"\npicture = "b.n"\ncrop_name = "{number}"', "both 'b' and 'b.n'"),
        ('box = ""', 'box = ""\nwiden = nan', "'widen' must be a number from 1, got nan"),
        ('box = ""', 'box = ""\nwiden = inf', "'widen' must be a number from 1, got inf"),
        ('box = ""', 'box = ""\nmin_side = nan', "'min_side' must be a number from 0, got nan"),
        ('box = ""', 'box = ""\nmax_aspect = 0.5', "'max_aspect' must be a number from 1"),
        ('["\\\\boxed{', '["\\boxed{', r"'answer': TOML reads \\b as .* write \\\\b,"),
        ('"mine"', "2026-11-26", "'name': 2026-11-26 is a date or time in TOML; put it in quotes"),
        ("[malformed]", "stop = [07:32:00]\n[malformed]", "'stop': 07:32:00 is a date or time"),
        ('box = ""', 'box = "b"\npicture = "n"\ncrop_name = "{number}"\noriginal_name = "1"',
         "'original_name' '1' is also the name of a crop by 'crop_name' '{number}'"),
        ('box = ""', 'box = "b"\npicture = "n"\ncrop_name = "p{picture}"\noriginal_name = "p2"',
         "'p2' is also the name of a crop"),
        ("[malformed]", f"# {'x' * 2**20}\n[malformed]", "larger than 1 MiB, so no protocol file"),
        ('direct_system = "Answer in \\\\boxed{}."', "", "'direct_system' must be given"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_one_sentence(
    old: str, new: str, sentence: str, tmp_path: Path
) -> None:
    assert old in OWN
    with pytest.raises(ConfigError, match=sentence) as error:
        built(OWN.replace(old, new), tmp_path)
    assert str(error.value).startswith(str(tmp_path / "own.toml"))
    assert len(str(error.value)) < 500 + len(str(tmp_path))


def test_the_first_view_may_have_the_name_that_the_pattern_gives_it(tmp_path: Path) -> None:
    for pattern, name in (("{number}", "0"), ("{picture}", "1"), ("{number}", "original")):
        keys = f'box = "b"\npicture = "n"\ncrop_name = "{pattern}"\noriginal_name = "{name}"'
        assert built(OWN.replace('box = ""', keys), tmp_path).name == "mine"


def test_a_word_that_is_no_name_of_a_file_is_an_unknown_protocol() -> None:
    with pytest.raises(ConfigError, match="unknown protocol"):
        protocol_given("a" * 5000)


def test_a_missing_file_and_a_mistyped_name_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, sentence in (
        (str(tmp_path / "no.toml"), f"lfpc: {tmp_path}/no.toml: No such file or directory\n"),
        ("deepeye", "did you mean deepeyes?\n"),
    ):
        assert cli.main(["eval", "data", "--protocol", word, "--out", str(tmp_path / "out")]) == 1
        assert capsys.readouterr().err.endswith(sentence)


def test_the_file_of_the_docs_reads_a_crop_and_an_answer(folder: Path) -> None:
    text = DOCS.read_text(encoding="utf-8")
    own = built(text.split("```toml\n")[1].split("```")[0], folder)
    crop = own.parse("<look>[500, 0, 1000, 1000]</look>", (FIRST,))
    assert crop == Crop(Box(0.5, 0, 1, 1))
    assert own.parse("It is \\boxed{red}", (FIRST,)) == Answer("red")
    assert "final answer in \\boxed{}" in own.system
    keys = {name for cls in (ProtocolFile, ReplyFormat) for name in fields(cls)}
    table = text.split("## A fine-tune")[1].split("## Thyme")[0]
    assert {key.name for key in keys} - {"name", "base", "malformed", "reply"} <= set(
        re.findall(r"`(\w+)`", table)
    )


def test_the_help_of_every_verb_that_asks_a_model_lists_the_names() -> None:
    page = DOCS.with_name("cli.md").read_text(encoding="utf-8")
    for verb in ("ask", "eval", "probe", "select", "serve"):
        shown = " ".join(page.split(f"## lfpc {verb}\n")[1].split("\n## ")[0].split())
        if "--protocol NAME|FILE.toml" in shown:
            assert f"format of the model's family: {', '.join(PROTOCOLS)}; or" in shown
        else:
            assert verb == "probe"  # asks as the run did


def test_a_starting_file_is_written_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["protocols", "show", "mini_o3", "--out", str(tmp_path / "mine.toml")]
    assert cli.main(command) == 0
    assert (tmp_path / "mine.toml").read_text() == starting_file("mini_o3")
    assert cli.main(command) == 1
    assert "exists already; delete it" in capsys.readouterr().err
    assert cli.main(command[:3]) == 0
    assert capsys.readouterr().out == starting_file("mini_o3")


def test_a_configuration_keeps_the_content_of_the_file(folder: Path) -> None:
    own = built(OWN, folder)
    config = EvaluationConfig(model="m", budget=64, probe="own", protocol=own.given)
    again = config_from_plain(EvaluationConfig, json.loads(json.dumps(plain(config))), "")
    assert again == config
    assert prompt_hash(again.chat) == prompt_hash(own) != prompt_hash(PROTOCOLS["qwen2_5_vl"])
    assert Origin(plain(config), {}).rules == own.crop
    assert Origin({}, {}).rules == Origin({"protocol": "another"}, {}).rules == CropRules()
    settings = CheckpointSettings(protocol=own.given)
    write_settings(settings, folder)
    assert read_settings(folder) == settings
    row = "| protocol | mine, on qwen2_5_vl (lfpc.json holds its file) |"
    assert row in model_card(folder).splitlines()


@pytest.mark.slow
def test_a_run_speaks_the_file_and_notices_its_change(
    tmp_path: Path, picture, capsys: pytest.CaptureFixture[str]
) -> None:
    write_samples(
        [Sample(id="a", image=picture(), question="What?", answer="?")], tmp_path / "data"
    )
    file = tmp_path / "own.toml"
    file.write_text(starting_file("qwen2_5_vl").replace("answer questions about", "look at"))
    with ChatServer() as server:
        command = ["eval", str(tmp_path / "data"), "--base-url", server.base_url, "--model"]
        command += ["scripted", "--budget", "16", "--probes", "own", "--out", str(tmp_path / "out")]
        assert cli.main([*command, "--protocol", str(file)]) == 0
        assert text_of(server.requests[0]["messages"][0]).startswith("You look at a picture.")
        (run,) = {path.parent for path in (tmp_path / "out").rglob("environment.json")}
        assert read_run(run).config["protocol"]["name"] == "my_qwen2_5_vl"
        moved = file.rename(tmp_path / "moved.toml")
        assert cli.main([*command, "--protocol", str(moved)]) == 0
        moved.write_text(moved.read_text().replace("look at", "study"))
        capsys.readouterr()
        assert cli.main([*command, "--protocol", str(moved)]) == 1
    said = capsys.readouterr().err
    assert "`" not in said
    assert 'system of --protocol is "You look at a picture.' in said
    assert 'in the existing run but "You study a picture.' in said


def test_training_takes_a_file_and_its_crops(tmp_path: Path, folder: Path) -> None:
    from lfpc.training.options import parsed
    from lfpc.training.presets import preset

    file = tmp_path / "own.toml"
    file.write_text(OWN.replace("[malformed]", "crop_tokens = [9, 99]\n[malformed]"))
    asked = parsed(preset("stage1"), ["--protocol", str(file)], prog="lfpc train stage1").run
    assert (asked.chat.name, asked.crop.max_tokens) == ("mine", 99)
    assert config_from_plain(type(asked), json.loads(json.dumps(plain(asked))), "") == asked
    assert replace(asked, steps=3).chat is asked.chat
