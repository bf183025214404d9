"""The endpoint, asked by the official client."""

import base64
import gc
import io
import json
import re
import threading
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
from live_server import CALL, CONFIG, listening, scripted_model
from PIL import Image

from lfpc.ask import live
from lfpc.errors import PolicyError
from lfpc.policies.threaded import ThreadedPolicy

HOSTILE = "<script>alert(1)</script> \N{RIGHT-TO-LEFT OVERRIDE} \N{PILE OF POO}"


def png(image=None):
    out = io.BytesIO()
    (image or Image.linear_gradient("L").convert("RGB")).save(out, "PNG")
    return out.getvalue()


def data_uri(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def messages(data=None, question="Which colour?"):
    picture = {"type": "image_url", "image_url": {"url": data_uri(png() if data is None else data)}}
    return [{"role": "user", "content": [picture, {"type": "text", "text": question}]}]


@pytest.fixture
def model():
    return scripted_model()


@contextmanager
def asking(model, folder):
    with (
        listening(model, folder) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.fixture
def client(model, tmp_path):
    with asking(model, tmp_path) as client:
        yield client


def test_a_client_gets_the_answer_and_what_was_used_in_all_turns(client):
    assert [found.id for found in client.models.list()] == ["script"]
    completion = client.chat.completions.create(model="script", messages=messages())
    choice = completion.choices[0]
    # 256 x 256, row y has grey y; the first view is 112 x 112, so pixels 0 to 56 of it are rows 0
    # to 127: their mean is 63.5
    assert choice.message.content == "[(64, 64, 64), (64, 64, 64)]"
    assert choice.finish_reason == "stop"
    said = [CALL, CALL, f"<answer>{choice.message.content}</answer>"]
    assert choice.message.reasoning_content == "".join(f"{text}\n" for text in said)
    written = sum(map(len, said))
    assert completion.usage.model_dump(
        include={"prompt_tokens", "completion_tokens", "total_tokens"}
    ) == {
        "prompt_tokens": 300,
        "completion_tokens": written,
        "total_tokens": 300 + written,
    }


def test_the_boxes_of_the_crops_are_beside_the_choices(client):
    found = client.chat.completions.create(model="script", messages=messages()).lfpc
    assert [turn["action"]["kind"] for turn in found["turns"]] == ["crop", "crop", "answer"]
    assert found["turns"][0]["action"]["box"] == [0, 0, 0.5, 0.5]
    assert found["turns"][0]["cut"] == [0, 0, 128, 128]
    # 16 tokens of the first view, then two crops of 128 pixels: 5 x 5 tokens rounded, above 16, so
    # 4 x 4
    assert (found["stop"], found["first_view"], found["visual_tokens"]) == (
        "answered",
        [112, 112],
        48,
    )


def test_a_stream_has_a_chunk_per_turn_and_ends_with_usage(client):
    stream = client.chat.completions.create(
        model="script", messages=messages(), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    whole = client.chat.completions.create(model="script", messages=messages())
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert (
        "".join(getattr(delta, "reasoning_content", "") for delta in deltas)
        == whole.choices[0].message.reasoning_content
    )
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-2:] == [
        None,
        "stop",
    ]
    turns = [
        turn for chunk in chunks for turn in (chunk.model_extra.get("lfpc") or {}).get("turns", [])
    ]
    assert turns == whole.lfpc["turns"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_the_option_for_usage_has_none(client):
    chunks = list(client.chat.completions.create(model="script", messages=messages(), stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_a_question_is_sampled_as_it_asks_within_what_the_server_allows(client, model):
    client.chat.completions.create(
        model="script", messages=messages(), temperature=0.7, top_p=0.9, max_tokens=9, seed=5
    )
    client.chat.completions.create(
        model="script", messages=messages(), max_completion_tokens=100_000
    )
    first, second = model.asked_with
    assert (first.temperature, first.top_p, first.sampling_seed) == (0.7, 0.9, 5)
    # the limit of the answer is none of the crop calls before it
    assert (first.max_new_tokens, second) == (CONFIG.max_new_tokens, CONFIG)


def test_a_follow_up_is_asked_about_the_same_picture(client):
    talk = [
        *messages(),
        {"role": "assistant", "content": "grey"},
        {"role": "user", "content": "And now?"},
    ]
    found = client.chat.completions.create(model="script", messages=talk, presence_penalty=0.5)
    assert found.lfpc["ignored"] == ["texts of earlier messages", "presence_penalty"]


def test_an_episode_that_runs_out_of_turns_ends_for_length(tmp_path):
    with asking(scripted_model(lambda context: CALL), tmp_path) as client:
        found = client.chat.completions.create(model="script", messages=messages())
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == ("", "length")
    assert found.lfpc["stop"] == "max_turns"


def test_hostile_texts_arrive_as_they_are(tmp_path):
    long = HOSTILE + "x" * 90_000
    with asking(scripted_model(lambda context: f"<answer>{long}</answer>"), tmp_path) as client:
        found = client.chat.completions.create(model="script", messages=messages(question=HOSTILE))
    assert found.choices[0].message.content == long


@pytest.mark.parametrize(
    ("request_", "error", "sentence"),
    [
        (
            {"model": "gpt"},
            openai.NotFoundError,
            "unknown model 'gpt'; this server has 'script'",
        ),
        ({"n": 2}, openai.BadRequestError, "n can only be 1"),
        (
            {"messages": messages(b"GIF89a no picture")},
            openai.BadRequestError,
            "not a picture in one of the formats JPEG",
        ),
        (
            {"messages": messages(png()[:200])},
            openai.BadRequestError,
            "the picture is broken: its file is cut off or damaged",
        ),
        (
            {"messages": [{"role": "user", "content": "hello"}]},
            openai.BadRequestError,
            "no picture in the user's messages",
        ),
    ],
)
def test_refusals_are_the_clients_own_errors(client, request_, error, sentence):
    with pytest.raises(error, match=re.escape(sentence)) as caught:
        client.chat.completions.create(**{"model": "script", "messages": messages(), **request_})
    assert caught.value.body["type"] == "invalid_request_error"


def test_a_decompression_bomb_is_refused_by_its_header(client):
    bomb = bytearray(png(Image.new("L", (8, 8))))
    bomb[16:24] = (30_000).to_bytes(
        4, "big"
    ) * 2  # width and height of the header; its checksum no longer fits, and is not needed
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with pytest.raises(
        openai.BadRequestError, match="30000 x 30000 pixels; the maximum is 100,000,000"
    ):
        client.chat.completions.create(model="script", messages=messages(bytes(bomb)))


def test_a_model_that_fails_is_a_server_error_also_within_a_stream(tmp_path):
    def fails_later(context):
        if context.turns:
            raise PolicyError("http://127.0.0.1:1/v1: no answer within 600 s")
        return CALL

    with asking(scripted_model(fails_later), tmp_path) as client:
        with pytest.raises(openai.InternalServerError, match="no answer within 600 s"):
            client.chat.completions.create(model="script", messages=messages())
        with pytest.raises(openai.APIError, match="no answer within 600 s"):
            list(client.chat.completions.create(model="script", messages=messages(), stream=True))


def test_a_fault_of_the_server_is_reported_without_its_details(tmp_path, caplog):
    sentence = "failed in the server (ZeroDivisionError); its log says more"
    with (
        asking(scripted_model(lambda context: 1 / 0), tmp_path) as client,
        pytest.raises(openai.InternalServerError, match=re.escape(sentence)),
    ):
        client.chat.completions.create(model="script", messages=messages())
    assert "a question failed" in caplog.text


def test_too_many_questions_are_asked_to_come_again(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "LONGEST_QUEUE", 0)
    with listening(scripted_model(), tmp_path) as address:
        answer = httpx.post(
            f"{address}/v1/chat/completions", json={"model": "script", "messages": messages()}
        )
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["error"]["type"]) == (
        429,
        "1",
        "rate_limit_error",
    )


def test_the_documented_program_runs_as_written(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
    program = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "picture.png").write_bytes(png())
    monkeypatch.chdir(tmp_path)
    with listening(scripted_model(), tmp_path / "served") as address, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ResourceWarning
        )  # a script leaves its client to the end of the process
        exec(program.replace("http://127.0.0.1:8017", address), {})
        gc.collect()
    assert capsys.readouterr().out.splitlines()[1:] == [str([[0.0, 0.0, 0.5, 0.5]] * 2)]


def test_unknown_paths_and_other_sites_are_refused(client):
    address = str(client.base_url).removesuffix("/v1/")
    found = httpx.post(f"{address}/v1/embeddings", json={})
    assert (found.status_code, found.json()["error"]["message"]) == (404, "Not Found")
    assert (
        httpx.get(f"{address}/v1/chat/completions").json()["error"]["message"]
        == "Method Not Allowed"
    )
    body = json.dumps({"model": "script", "messages": messages()})
    assert (
        httpx.post(
            f"{address}/v1/chat/completions",
            content=body,
            headers={"origin": "https://example.org"},
        ).status_code
        == 403
    )
    assert (
        httpx.post(f"{address}/v1/chat/completions", content=b"{")
        .json()["error"]["message"]
        .startswith("the request is not JSON")
    )


@pytest.mark.slow
def test_a_client_that_leaves_stops_the_episode(tmp_path, monkeypatch):
    contexts = []
    ended = threading.Event()
    leave = ThreadedPolicy.__aexit__

    async def left(self, *error):
        ended.set()
        return await leave(self, *error)

    monkeypatch.setattr(ThreadedPolicy, "__aexit__", left)

    def slow(context):
        contexts.append(len(context.turns))
        return CALL

    gate = threading.Semaphore(1)
    model = scripted_model(slow, replace(CONFIG, max_turns=50), gate=gate)
    with listening(model, tmp_path) as address:
        body = {"model": "script", "messages": messages(), "stream": True}
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
        assert ended.wait(30)
        gate.release(100)
        # replies are made one after the other: an episode that went on would be among these
        httpx.post(f"{address}/v1/chat/completions", json={**body, "stream": False}, timeout=60)
    assert contexts[-50:] == list(range(50))
    # the second reply was being made, or waited, when the client left
    assert contexts[:-50] in ([0], [0, 1])
