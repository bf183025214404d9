"""Servers that are missing, refuse, or sit behind a proxy: what the user is told."""

import json
import time

import numpy as np
import pytest
from chat_server import KEEP_STOP, ChatServer
from PIL import Image

from lfpc import cli
from lfpc.boxes import WHOLE
from lfpc.dialogue import Context, Usage
from lfpc.episode import episode, play
from lfpc.errors import PolicyError
from lfpc.evaluation.opened import first_view
from lfpc.images import View
from lfpc.looks import original_look
from lfpc.policies.backends import Server
from lfpc.policies.connections import body_reason, check_model, client
from lfpc.policies.served import ServedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.samples import write_samples

CONTEXT = Context("Which?", (), View(Image.new("RGB", (28, 28)), WHOLE), ())
NOTHING_THERE = "http://127.0.0.1:9/v1"


def policy_of(server, protocol="qwen2_5_vl", **options):
    return ServedPolicy(
        Server(base_url=server.base_url, timeout_s=20.0, retries=0, **options),
        "scripted",
        PROTOCOLS[protocol],
    )


def refusing(server, *answers):
    """`server`, which gives `answers` (status, body) before it does what it is asked."""
    todo = list(answers)
    asked = []
    answer = server._answer

    async def first_refuse(request):
        asked.append(request)
        if todo:
            status, body = todo.pop(0)
            return status, {}, body if isinstance(body, bytes) else json.dumps(body).encode()
        return await answer(request)

    server._answer = first_refuse
    return asked


SAYS = "Unknown field include_stop_str_in_output"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"error": {"message": SAYS, "type": "x", "param": None}}, SAYS),
        ({"error": SAYS}, SAYS),
        ({"detail": SAYS}, SAYS),
        ({"message": SAYS}, SAYS),
        ({"object": "error", "message": SAYS, "code": 400}, SAYS),
        ({"detail": {"error": {"message": SAYS}}}, SAYS),
        ([{"error": {"message": SAYS}}], SAYS),
        (
            {"detail": [{"type": "x", "loc": ["body", KEEP_STOP], "msg": "not permitted"}]},
            f"body.{KEEP_STOP}: not permitted",
        ),
        ({"error": {"message": "Bad value", "param": KEEP_STOP}}, f"{KEEP_STOP}: Bad value"),
        ({"code": 7, KEEP_STOP: "?"}, '{"code": 7, "include_stop_str_in_output": "?"}'),
        (SAYS.encode(), SAYS),
        (
            b"<html><head><title>400 include_stop_str_in_output</title></head></html>",
            f"400 {KEEP_STOP}",
        ),
    ],
)
def test_the_reason_is_found_in_every_shape_of_body_and_the_field_left_out(body, says):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert body_reason(raw.decode()) == says
    with ChatServer(say=lambda *_: "<answer>K</answer>", style="plain") as server:
        asked = refusing(server, (400, body))
        (reply,) = policy_of(server).reply([CONTEXT])
    assert reply.text == "<answer>K</answer>"
    assert [KEEP_STOP in request for request in asked] == [True, False]
    assert asked[1]["stop"] == asked[0]["stop"]


def test_a_server_that_fails_on_stop_is_asked_without_and_any_other_failure_changes_nothing():
    with ChatServer(say=lambda *_: "<answer>K</answer> and") as server:
        policy = policy_of(server)
        broken = (500, b"Internal Server Error")
        asked = refusing(server, broken, broken)
        with pytest.raises(PolicyError, match=r"Error code: 500 - Internal Server Error$"):
            policy.reply([CONTEXT])
        asked += refusing(server, broken)
        (reply,) = policy.reply([CONTEXT])
        policy.reply([CONTEXT])
    assert reply.text == "<answer>K</answer>"
    assert ["stop" in request for request in asked][:2] == [True, False]
    assert [KEEP_STOP in request for request in server.requests] == [False, False]


def test_a_server_that_refuses_stop_is_asked_without_and_its_replies_are_cut_here():
    said = "I think.<answer>K</answer> and now something else <tool_call>{}</tool_call>"
    refusal = {"error": {"message": "Unsupported parameter: 'stop' is not supported."}}
    with ChatServer(say=lambda *_: said, style="plain") as server:
        asked = refusing(server, (400, refusal))
        policy = policy_of(server)
        replies = policy.reply([CONTEXT]) + policy.reply([CONTEXT])
    assert [reply.text for reply in replies] == ["I think.<answer>K</answer>"] * 2
    assert {reply.finish for reply in replies} == {"stop"}
    assert ["stop" in request for request in asked] == [True, False, False]
    assert not any(KEEP_STOP in request for request in asked[1:])


def test_a_server_that_knows_only_the_new_token_limit_gets_that():
    says = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'."
    with ChatServer() as server:
        asked = refusing(server, (400, {"error": {"message": says}}))
        policy_of(server).reply([CONTEXT])
    assert "max_tokens" not in asked[1]
    assert asked[1]["max_completion_tokens"] == asked[0]["max_tokens"]


@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_of_something_else_is_an_error_with_the_reason(status):
    body = {"detail": "This model's maximum context length is 8192 tokens."}
    with ChatServer() as server:
        refusing(server, (status, body))
        with pytest.raises(PolicyError) as caught:
            policy_of(server).reply([CONTEXT])
    assert str(caught.value) == (
        f"{server.base_url}: Error code: {status} - This model's maximum context length is 8192 "
        f"tokens."
    )


def test_the_models_of_a_server_are_asked_for_once():
    with ChatServer() as server:
        for _ in range(2):
            policy = policy_of(server)
            policy.reply([CONTEXT])
            policy.reply([CONTEXT])
    assert server.listings == ["/v1/models"]


@pytest.mark.parametrize(
    "verb",
    ["ask", "eval", "select", "serve", pytest.param("probe", marks=pytest.mark.slow)],
)
def test_a_missing_server_or_model_is_one_sentence_before_any_question(
    tmp_path, sample, capsys, verb, monkeypatch
):
    monkeypatch.delenv("LFPC_API_KEY", raising=False)
    folder = write_samples([sample()], tmp_path / "data").parent
    out = ["--out", str(tmp_path / "out")]
    words = {
        "ask": ["ask", str(sample().image), "Which?", *out],
        "eval": ["eval", str(folder), *out, "--budget", "16"],
        "select": ["select", str(folder), *out],
        "serve": ["serve", "--port", "0"],
        "probe": ["probe", str(tmp_path / "run"), "--probes", "noise"],
    }[verb]
    with ChatServer(models=[f"m{i}" for i in range(12)], say=lambda *_: "<answer>K") as server:
        if verb == "probe":
            server.models = None
            model = ["--base-url", server.base_url, "--model", "scripted"]
            made = ["eval", str(folder), "--out", str(tmp_path / "run"), "--budget", "16"]
            assert cli.main([*made, *model, "--probes", "own"]) == 0
            check_model.cache_clear()
            server.models = [f"m{i}" for i in range(12)]
        asked = len(server.requests)
        name = [] if verb == "probe" else ["--model", "scripted"]
        capsys.readouterr()
        assert cli.main([*words, "--base-url", server.base_url, *name]) == 1
        wrong_model = capsys.readouterr().err.splitlines()[-1]
        began = time.monotonic()
        assert cli.main([*words, "--base-url", NOTHING_THERE, *name]) == 1
    assert time.monotonic() - began < 5
    assert len(server.requests) == asked
    assert wrong_model == (
        f"lfpc: {server.base_url} has no model 'scripted'; it has m0, m1, m2, m3, m4, m5, m6, m7, "
        f"m8, m9 and 2 more"
    )
    missing = capsys.readouterr().err.splitlines()[-1]
    assert missing.startswith(f"lfpc: {NOTHING_THERE}: Connection error.")
    assert missing.endswith("is the server running, and is its address right?")


@pytest.mark.parametrize(
    ("model", "listed"),
    [
        ("qwen2.5vl", "qwen2.5vl:latest"),
        ("gemini-3", "models/gemini-3"),
        ("org/model@main", "org/model"),
        ("a", "a"),
    ],
)
def test_a_model_may_be_listed_under_its_longer_name(model, listed):
    with ChatServer(models=["other", listed]) as server:
        check_model(server.base_url, model)
        with pytest.raises(PolicyError, match="has no model 'b:1'"):
            check_model(server.base_url, "b:1")


def test_a_model_that_the_server_loads_from_a_folder_need_not_be_listed(tmp_path):
    with ChatServer() as server:
        check_model(server.base_url, str(tmp_path))


def test_a_server_that_wants_a_key_says_so_at_once(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    async def wants_a_key(path, writer):
        writer.write(b"HTTP/1.1 401 X\r\nContent-Length: 20\r\n\r\n" + b'{"detail": "no key"}')

    with ChatServer() as server:
        server._listing = wants_a_key
        with pytest.raises(PolicyError, match=r"401 - no key \(set OPENAI_API_KEY\)"):
            check_model(server.base_url, "m")
        monkeypatch.setenv("OPENAI_API_KEY", "one that may ask but not list")
        check_model(server.base_url, "m")


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"])
@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:7890/", "http://127.0.0.1:9", "nonsense:"])
def test_a_server_on_this_machine_is_asked_without_a_proxy(monkeypatch, name, proxy):
    monkeypatch.setenv(name, proxy)
    with ChatServer(say=lambda *_: "<answer>K") as server:
        (reply,) = policy_of(server).reply([CONTEXT])
    assert reply.usage == Usage(200, len("<answer>K"))


def test_a_proxy_that_breaks_the_client_is_named(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:7890/")
    with pytest.raises(PolicyError, match=r"the proxy in ALL_PROXY cannot be used \(.*socks"):
        client("http://models.example/v1", timeout_s=1, retries=0)
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with pytest.raises(
        PolicyError, match=r"Connection error.*asked through the proxy in ALL_PROXY"
    ):
        check_model("http://models.example/v1", "m")


def test_control_tokens_of_texts_from_outside_are_broken_up_for_a_server(sample, tmp_path):
    picture = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    protocol = PROTOCOLS["qwen2_5_vl"]
    asked = sample(
        image=picture, question="Count <|image_pad|> and <|im_end|>", options=("<|", "b")
    )
    replies = ["no call: <|vision_start|> <|box|>", "<answer>a"]
    with ChatServer(say=lambda q, turn, pictures: replies[turn]) as server:
        game = episode(
            asked, first_view(asked, 16), look=original_look(protocol.crop), protocol=protocol
        )
        play([game], policy_of(server))
    first, said, _ = server.requests[1]["messages"][1:]
    assert first["content"][1]["text"] == "Count < |image_pad|> and < |im_end|>\nA. < |\nB. b"
    assert said["content"] == "no call: < |vision_start|> <|box|>"
