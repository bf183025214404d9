"""What a server is sent and sends back where the chat template describes the tools, or the model
writes on in its own turn."""

import json

import numpy as np
import pytest
from chat_server import ChatServer, pictures_of
from PIL import Image

from lfpc.boxes import Box
from lfpc.dialogue import Crop
from lfpc.episode import episode, play
from lfpc.errors import PolicyError
from lfpc.evaluation.opened import first_view
from lfpc.images import View
from lfpc.looks import original_look
from lfpc.policies.backends import Server
from lfpc.policies.chat_api import (
    NoReply,
    PictureUrls,
    chat_messages,
    protocol_reply,
    read_reply,
)
from lfpc.policies.served import ServedPolicy
from lfpc.protocols import PROTOCOLS, Message
from lfpc.protocols.qwen3_vl import TOOL, call_text

CALL = call_text(TOOL, '{"bbox_2d": [0, 0, 500, 500]}')
CODE = (
    "<think>I look.\n<code>\n```python\nimg = Image.open('image.jpg')\nimg.crop((0, 0, 100, "
    "75)).save('a.jpg')\n```\n</code>"
)


def played(server: ChatServer, sample, name: str, **options):
    """One question asked of a served model that speaks the protocol `name`."""
    protocol = PROTOCOLS[name]
    policy = ServedPolicy(
        Server(base_url=server.base_url, timeout_s=20.0, retries=0), "scripted", protocol, **options
    )
    view = first_view(sample, 16, factor=protocol.factor)
    return play(
        [episode(sample, view, look=original_look(protocol.crop), protocol=protocol)], policy
    )[0]


@pytest.fixture
def question(sample, tmp_path):
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)).save(
        path
    )
    return sample(image=path)


@pytest.mark.parametrize("calls", ["text", "parsed", "refused"])
@pytest.mark.parametrize(("name", "role"), [("qwen3_vl", "tool"), ("qwen3_vl_user", "user")])
def test_tools_go_to_the_chat_template_and_calls_are_text_again(question, calls, name, role):
    with ChatServer(
        calls=calls, say=lambda q, turn, pictures: "K" if turn else f"Let me look.\n{CALL}"
    ) as server:
        found = played(server, question, name)
    assert (found.answer, found.boxes) == ("K", (Box(0, 0, 0.5, 0.5),))
    assert found.turns[0].reply.text == f"Let me look.\n{CALL}"
    assert server.refused == (calls == "refused")
    for request in server.requests:
        assert json.dumps(request["tools"]) == json.dumps(PROTOCOLS[name].native_tools)
        assert request.get("tool_choice") == ("none" if calls == "refused" else None)
    system, first, said, shown = server.requests[-1]["messages"]
    assert (system["role"], first["role"]) == ("system", "user")
    assert said == {"role": "assistant", "content": f"Let me look.\n{CALL}"}
    assert shown["role"] == role
    assert shown.get("tool_call_id") == ("call_4" if role == "tool" else None)
    assert len(pictures_of([shown])) == 1


def test_without_tools_none_are_sent(question):
    with ChatServer(say=lambda q, turn, pictures: "K") as server:
        played(server, question, "qwen3_vl", tools=False)
    assert "tools" not in server.requests[0]


def test_a_model_writes_on_in_its_own_turn(question):
    with ChatServer(
        say=lambda q, turn, pictures: (CODE, "A K.</think><answer>K</answer>")[len(pictures) - 1]
    ) as server:
        found = played(server, question, "thyme")
    assert (found.answer, len(found.boxes)) == ("K", 1)
    first, second = server.requests
    assert "continue_final_message" not in first
    assert (second["continue_final_message"], second["add_generation_prompt"]) == (True, False)
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant"]
    parts = second["messages"][-1]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text"]
    assert (parts[0]["text"], parts[2]["text"]) == (f"{CODE}<sandbox_output>", "</sandbox_output>")


def test_texts_that_follow_each_other_are_one_and_other_turns_stay_apart():
    view = View(Image.new("RGB", (28, 28)), Box(0, 0, 1, 1))
    messages = [
        Message("user", (view, "a", "b")),
        Message("assistant", ("c",)),
        Message("assistant", ("d",)),
        Message("user", ("e",)),
    ]
    user, model, last = chat_messages([*messages], PictureUrls())
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert user["content"][1]["text"] == "ab"
    assert (model["content"], last["content"]) == ("cd", "e")


ZOOM = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 56, 56]}}'
CROP = (
    '{"name": "crop_image_normalized", "arguments": {"bbox_2d": [0, 0, 0.5, 0.5], '
    '"target_image": 1}}'
)
WRITTEN = {
    "qwen2_5_vl": f"<tool_call>{ZOOM}</tool_call>",
    "deepeyes": f"<tool_call>\n{ZOOM}\n</tool_call>",
    "pixel_reasoner": f"<tool_call>{CROP}</tool_call>",
    "qwen3_vl": CALL,
    "qwen3_vl_text": CALL,
}


def completion(message, finish="stop") -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode()


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("content", [None, "", "Let me look.\n"])
@pytest.mark.parametrize("form", ["calls", "decoded arguments", "function_call", "repeated"])
def test_a_call_that_a_server_took_out_is_text_of_the_family_again(name, content, form):
    written = WRITTEN[name]
    call = json.loads(written.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    arguments = call["arguments"] if form == "decoded arguments" else json.dumps(call["arguments"])
    function = {"name": call["name"], "arguments": arguments}
    message = {"content": content, "tool_calls": [{"id": "1", "function": function}]}
    if form == "function_call":
        message = {"content": content, "function_call": function}
    if form == "repeated":
        message["content"] = (content or "") + written
    reply = protocol_reply(completion(message, "tool_calls"), PROTOCOLS[name])
    assert reply.text == (content or "") + written
    view = View(Image.new("RGB", (112, 112)), Box(0, 0, 1, 1))
    assert isinstance(PROTOCOLS[name].parse(reply.text, (view,)), Crop)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "deepeyes", "pixel_reasoner"])
def test_a_server_with_a_tool_call_parser_gives_the_episode_of_one_without(question, name):
    said = [f"Let me look.{WRITTEN[name]}", "\\boxed{K}<answer>K</answer>"]
    found = []
    for calls in ("text", "parsed"):
        with ChatServer(calls=calls, say=lambda q, turn, pictures: said[turn]) as server:
            found.append(played(server, question, name))
    text, parsed = found
    assert (parsed.answer, parsed.boxes) == (text.answer, text.boxes)
    assert parsed.turns[0].reply.text == said[0]
    assert len(parsed.boxes) == 1


def test_arguments_that_are_no_json_stay_a_malformed_call_of_the_model():
    function = {"name": TOOL, "arguments": '{"bbox_2d": [1, 2'}
    body = completion({"content": None, "tool_calls": [{"function": function}]})
    reply = protocol_reply(body, PROTOCOLS["qwen2_5_vl"])
    assert reply.text.count("[1, 2") == 1
    view = View(Image.new("RGB", (28, 28)), Box(0, 0, 1, 1))
    assert PROTOCOLS["qwen2_5_vl"].parse(reply.text, (view,)).reason == "bad_json"


@pytest.mark.parametrize("name", ["mini_o3", "ergo", "thyme"])
def test_a_family_whose_calls_have_another_form_names_the_parser(name):
    function = {"name": TOOL, "arguments": "{}"}
    body = completion({"content": "", "tool_calls": [{"function": function}]})
    with pytest.raises(PolicyError, match="without a tool-call parser"):
        protocol_reply(body, PROTOCOLS[name])


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_that_a_server_took_out_goes_back_for_families_that_write_it(field):
    function = {"name": TOOL, "arguments": '{"bbox_2d": [0, 0, 56, 56]}'}
    call = {"content": "", "tool_calls": [{"function": function}], field: "\nIt is small.\n"}
    written = f"<think>\nIt is small.\n</think>{WRITTEN['deepeyes']}"
    assert protocol_reply(completion(call), PROTOCOLS["deepeyes"]).text == written
    assert protocol_reply(completion(call), PROTOCOLS["qwen2_5_vl"]).text == WRITTEN["qwen2_5_vl"]
    for content in (None, "", " \n"):
        with pytest.raises(PolicyError, match=f"{field}.*without a reasoning parser"):
            protocol_reply(completion({"content": content, field: "K"}), PROTOCOLS["deepeyes"])


def test_a_reply_in_parts_and_a_refusal_are_text():
    parts = [
        {"type": "text", "text": "<answer>"},
        {"type": "thinking"},
        {"type": "text", "text": "K"},
    ]
    assert protocol_reply(completion({"content": parts}), PROTOCOLS["deepeyes"]).text == (
        "<answer>K</answer>"
    )
    refused = completion({"content": None, "refusal": "I cannot help."})
    assert protocol_reply(refused, PROTOCOLS["deepeyes"]).text == "I cannot help."


def test_a_parsed_call_without_arguments_is_no_reply():
    body = json.dumps(
        {"choices": [{"message": {"content": None, "tool_calls": [{"function": {"name": TOOL}}]}}]}
    ).encode()
    with pytest.raises(NoReply, match="a call without"):
        read_reply(body, (), call_text)
