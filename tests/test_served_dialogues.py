"""What a server is sent and sends back where the chat template describes the tools, or the model
writes on in its own turn."""

import json

import numpy as np
import pytest
from chat_server import ChatServer, pictures_of
from PIL import Image

from lfpc.boxes import Box
from lfpc.episode import episode, play
from lfpc.evaluation.run import first_view
from lfpc.images import View
from lfpc.looks import original_look
from lfpc.policies.backends import Server
from lfpc.policies.chat_api import NoReply, PictureUrls, chat_messages, read_reply
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


def test_a_parsed_call_without_arguments_is_no_reply():
    body = json.dumps(
        {"choices": [{"message": {"content": None, "tool_calls": [{"function": {"name": TOOL}}]}}]}
    ).encode()
    with pytest.raises(NoReply, match="a call without"):
        read_reply(body, (), call_text)
