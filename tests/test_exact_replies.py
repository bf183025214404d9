"""Replies that a policy may learn, in every protocol: whether they are read, and whether they are
exactly what the prompt asks for, which alone a reward pays for.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shown import FIRST, RIGHT

from lfpc.boxes import Box
from lfpc.dialogue import Action, Answer, Crop
from lfpc.protocols import PROTOCOLS, protocol_given, protocol_named
from lfpc.protocols.base import LONGEST_REPLY

NAMES = (
    "qwen2_5_vl",
    "qwen3_vl",
    "deepeyes",
    "chain_of_focus",
    "mini_o3",
    "pixel_reasoner",
    "ergo",
    "thyme",
)
"""The columns of the tables."""
LABEL = "a sign " * 1_500
Edit = Callable[[dict[str, Any], dict[str, Any]], Any]

# C, A: a call or an answer, exact; c, a: it is read, and costs the format penalty; -: malformed.
# {call} and {answer} are in the words of the protocol; {call/} and {answer/} are not closed, and
# {tag} opens a call.
REPLIES = {
    "{call}": "CCCCCCCC",
    "{answer}": "AAAAAAAA",
    "Where is it? {call}": "CCCCCCCC",
    "It says K. {answer}": "AAAAAAAA",
    "<think>Where?</think>\n{call}\n": "CCCCCCCC",
    "<think>K.</think>\n{answer}\n": "AAAAAAAA",
    "K.</think>{answer}": "AAAAAAAA",  # a chat template may open the thinking
    "{call} and more": "cccccccc",
    "{answer} and more": "aaaaaAaa",  # \boxed{} is part of a sentence
    "{call}{call}": "cccccccc",
    "{answer}{answer}": "aaaaaaaa",
    "{call}{answer}": "ccaccccc",
    "{answer}{call}": "aaaaaaaa",
    "<think>{call}": "cccccccC",  # Thyme's prompt asks for it
    "<think>{answer}": "aaaaaaaa",
    "<think>{call}</think>{answer}": "caaccccc",
    "<think>{answer}</think>{call}": "acaaaaaa",
    "<think>A</think><think>B</think>{call}": "cccccccc",
    "<tool_response>K</tool_response>{answer}": "aaaaaaaa",
    "{tag}{answer}": "--a-----",
    "{tag}{call}": "-cccccc-",
    "<answer>{answer}": "aaaaaaaa",
    "<answer>K {call}</answer>": "aaaaacaa",
    "{call/}": "cccccccc",
    "{answer/}": "aaaaaaaa",
    "<answer> </answer>": "--------",
    "It says K.": "-A------",
    "It says K.</answer>": "-a------",
    "{call}" + " " * LONGEST_REPLY + "{call}": "cccccccc",  # the second is not read
}


def changed(**values: Any) -> Edit:
    """A call with these arguments."""
    return lambda _, given: given.update(values)


# the first six columns, whose calls are objects of JSON
CALLS: dict[str, tuple[Edit, str]] = {
    "a further key of the call": (lambda call, _: call.update(why="small"), "cccccc"),
    "a further argument": (changed(why="small"), "cccccc"),
    "a further box": (changed(bbox=[0, 0, 1, 1]), "cccccc"),
    "a label": (changed(label="a sign"), "cCCCcc"),
    "a label of 10,500 characters": (changed(label=LABEL), "cCCCcc"),
    "a label that is a number": (changed(label=7), "cccccc"),
    "a label that is a box": (changed(label=[0, 0, 1, 1]), "cccccc"),
    "img_idx": (changed(img_idx=0), "cCcccc"),
    "img_idx as a text": (changed(img_idx="0"), "cccccc"),
    "img_idx null": (changed(img_idx=None), "cccccc"),
    "target_image": (changed(target_image=1), "cccccC"),
    "target_image as a text": (changed(target_image="1"), "cccccc"),
    "observation_0": (changed(source="observation_0"), "cccccc"),
    "corners exchanged": (lambda _, given: given["bbox_2d"].reverse(), "cccccc"),
    "beyond the edges": (lambda _, given: given["bbox_2d"].__setitem__(0, -1), "CCCCCC"),
    "numbers as texts": (changed(bbox_2d=["10", "20", "90", "80"]), "------"),
    "pixels as shown": (changed(bbox_2d=[20, 20, 180, 80]), "CCCC-c"),
}


def call(name: str) -> str:
    """A call of the protocol."""
    write_call: Any = PROTOCOLS[name].write_call
    return write_call(Box(0.1, 0.2, 0.9, 0.8), FIRST)


def worded(reply: str, name: str) -> str:
    """A reply of the table in the words of a protocol."""
    asked = call(name)
    answer = "\\boxed{K}" if name == "pixel_reasoner" else "<answer>K</answer>"
    parts = {
        "{call}": asked,
        "{call/}": re.sub(r"</\w+>$", "", asked),
        "{tag}": asked[: asked.index(">") + 1],
        "{answer}": answer,
        "{answer/}": re.sub(r"</\w+>$|\}$", "", answer),
    }
    return re.sub(r"\{\w+/?\}", lambda found: parts.get(found[0], found[0]), reply)


def edited(edit: Edit, name: str) -> str:
    """A call whose JSON is changed."""
    text = call(name)
    body = text[text.index("{") : text.rindex("}") + 1]
    asked = json.loads(body)
    edit(asked, asked.get("arguments", asked))
    return text.replace(body, json.dumps(asked))


def letter(action: Action) -> str:
    """The action in the tables."""
    if not isinstance(action, Crop | Answer):
        return "-"
    kind = "c" if isinstance(action, Crop) else "a"
    return kind.upper() if action.exact else kind


@pytest.mark.parametrize(("reply", "letters"), REPLIES.items(), ids=lambda text: text[:40])
def test_what_is_read_and_paid(reply: str, letters: str) -> None:
    found = [letter(PROTOCOLS[name].parse(worded(reply, name), [FIRST])) for name in NAMES]
    assert "".join(found) == letters


@pytest.mark.parametrize(("edit", "letters"), CALLS.values(), ids=CALLS)
def test_which_calls_are_read_and_paid(edit: Edit, letters: str) -> None:
    found = [letter(PROTOCOLS[name].parse(edited(edit, name), [FIRST])) for name in NAMES[:6]]
    assert "".join(found) == letters


@pytest.mark.parametrize(
    ("parameters", "letters"),
    [
        ("", "C"),
        ("<parameter=label>\na sign\n</parameter>", "C"),
        ("<parameter=img_idx>0</parameter>", "C"),
        ("<parameter=img_idx>null</parameter>", "c"),
        ("<parameter=why>small</parameter>", "c"),
    ],
)
def test_which_calls_in_xml_are_read_and_paid(parameters: str, letters: str) -> None:
    box = "<parameter=bbox_2d>[50, 50, 150, 90]</parameter>"
    text = f"<tool_call><function=image_zoom_in_tool>{box}{parameters}</function></tool_call>"
    assert letter(PROTOCOLS["qwen3_vl"].parse(text, [FIRST])) == letters


@pytest.mark.parametrize(
    ("reply", "letters"),
    [
        ("<think>K.</think><answer>K</answer>", "A"),
        ("<think>Well, <answer>K</answer>", "a"),
        ("<zoom>[20, 20, 180, 80]</zoom><answer>K</answer>", "a"),
    ],
)
def test_the_second_reply_of_ergo(reply: str, letters: str) -> None:
    assert letter(PROTOCOLS["ergo"].parse(reply, [FIRST, RIGHT])) == letters


@pytest.mark.parametrize(
    ("numbers", "letters"),
    [("[20, 20, 180, 80]", "C"), ("[180, 80, 20, 20]", "c"), ('["20", 20, 180, 80]', "-")],
)
def test_the_region_of_ergo(numbers: str, letters: str) -> None:
    assert letter(PROTOCOLS["ergo"].parse(f"<zoom>{numbers}</zoom>", [FIRST])) == letters


FILE = """
name = "own"
base = "qwen2_5_vl"
system = "Look or answer."
direct_system = "Answer."
[reply]
call = ["<look>", "</look>"]
box = "at.box"
coordinates = "shown"
picture = "of"
crop_name = "{picture}"
answer = ["\\\\boxed{", "}"]
answer_wins = true
free_answer = true
"""


@pytest.mark.parametrize(
    ("reply", "letters"),
    [
        ('<look>{"at": {"box": [20, 20, 180, 80]}, "of": "1"}</look>', "C"),
        ('<look>{"at": {"box": [20, 20, 180, 80]}, "of": 1, "label": "a sign"}</look>', "C"),
        ('<look>{"at": {"box": [20, 20, 180, 80]}, "of": "01"}</look>', "c"),
        ('<look>{"at": {"box": [180, 80, 20, 20]}, "of": 1}</look>', "c"),
        ('<look>{"at": {"box": [20, 20, 180, 80], "or": [0, 0, 9, 9]}, "of": 1}</look>', "c"),
        ('<think>Where?<look>{"at": {"box": [20, 20, 180, 80]}, "of": 1}</look>', "c"),
        ("It is \\boxed{K}.", "A"),
        ("\\boxed{K", "a"),
        ("\\boxed{K} or \\boxed{L}", "a"),
        ("<look>[20, 20, 180, 80]</look>\\boxed{K}", "a"),
        ("It says K.", "A"),
        ("<think>Well</think><think>It says K.", "a"),
    ],
)
def test_a_protocol_file_reads_and_pays(reply: str, letters: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(FILE)
    own = protocol_named(protocol_given(str(path)))
    assert letter(own.parse(reply, [FIRST])) == letters
