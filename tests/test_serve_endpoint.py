"""The endpoint as programs of all kinds find it: many at once, impatient, or mistaken."""

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from live_server import CALL, listening, scripted_model
from PIL import Image, features
from test_serve_completions import asking, messages

from lfpc.ask import live
from lfpc.ask.live import Pace
from lfpc.web.ask.store import FileStore

ANSWERED = "<think>It is the letter.</think><answer>ABCDEFGHIJ</answer>"


def body(**options):
    return {"model": "script", "messages": messages(), **options}


@pytest.mark.parametrize("stream", [False, True])
def test_max_tokens_bounds_the_answer_and_not_the_crop_calls(tmp_path, stream):
    model = scripted_model(lambda context: ANSWERED if context.turns else CALL)
    with asking(model, tmp_path) as client:

        def ask(most):
            made = client.chat.completions.create(**body(max_tokens=most, stream=stream))
            chunks = list(made) if stream else [made]
            choices = [chunk.choices[0] for chunk in chunks]
            said = [choice.delta if stream else choice.message for choice in choices]
            text = "".join(one.content or "" for one in said)
            return text, choices[-1].finish_reason

        # the script counts a token a character
        assert ask(4) == ("ABCD", "length")
        assert ask(10) == ("ABCDEFGHIJ", "stop")
    assert {config.max_new_tokens for config in model.asked_with} == {512}


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("turns", [1, 2])
def test_a_client_that_has_left_stops_its_question(tmp_path, stream, turns):
    gate = threading.Semaphore(turns)
    said = []

    def script(context):
        said.append(len(context.turns))
        return CALL

    with listening(scripted_model(script, gate=gate), tmp_path) as address:
        path = f"{address}/v1/chat/completions"
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(path, json=body(stream=stream), timeout=0.5)
        time.sleep(0.2)  # the server hears of it
        gate.release(10)
        whole = httpx.post(path, json=body(), timeout=30)
    assert whole.status_code == 200
    # four turns of the second question; of the first those that it had, and the one in the model
    assert len(said) <= turns + 1 + 4


@pytest.mark.slow
def test_a_hundred_requests_at_once_are_all_answered(tmp_path):
    with (
        listening(scripted_model(), tmp_path) as address,
        httpx.Client(limits=httpx.Limits(max_connections=100), timeout=60) as client,
        ThreadPoolExecutor(100) as threads,
    ):
        path = f"{address}/v1/chat/completions"
        asked = [threads.submit(client.post, path, json=body()) for _ in range(100)]
        assert {one.result().status_code for one in asked} == {200}


def test_a_full_queue_names_the_seconds_until_a_place_is_free(tmp_path, monkeypatch):
    model = scripted_model()
    for _ in range(3):
        model._pace.finished(24.0)  # eight at once: a place every 3 seconds
    monkeypatch.setattr(live, "LONGEST_QUEUE", 0)
    with listening(model, tmp_path) as address:
        answers = [httpx.post(f"{address}/v1/chat/completions", json=body()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429] * 3
    # each refused client gets a place of its own
    assert [int(answer.headers["retry-after"]) for answer in answers] == [3, 6, 9]


def test_places_are_promised_from_the_pace_of_the_last_questions():
    pace = Pace(2)
    assert pace.wait_s(100.0) == 1.0
    pace.finished(10.0)
    pace.finished(6.0)  # 8 seconds in each of 2 slots: one every 4 seconds
    assert pace.wait_s(101.0) == 4.0
    assert pace.wait_s(102.0) == 7.0  # the second after 109
    assert pace.wait_s(200.0) == 4.0


def test_one_model_is_found_by_its_name(tmp_path):
    with asking(scripted_model(), tmp_path) as client:
        assert client.models.retrieve("script") == client.models.list().data[0]
        for name in ("other", "org/other"):
            with pytest.raises(openai.NotFoundError) as caught:
                client.models.retrieve(name)
            assert caught.value.code == "model_not_found"


MISTAKES = [
    ("GET", "/v1/nothing", {}, 404),
    ("GET", "/v1/models/other", {}, 404),
    ("GET", "/v1/chat/completions", {}, 405),
    ("POST", "/chat/completions", {"json": {}}, 404),
    ("POST", "/v1/chat/completions", {"content": b"{"}, 400),
    ("POST", "/v1/chat/completions", {"json": []}, 400),
    ("POST", "/v1/chat/completions", {"headers": {"host": "evil.example"}, "json": {}}, 403),
    ("GET", "/nothing", {}, 404),
]


def test_every_refusal_has_openais_shape(tmp_path):
    with listening(scripted_model(), tmp_path) as address:
        for method, path, options, status in MISTAKES:
            answer = httpx.request(method, address + path, **options)
            assert answer.status_code == status, path
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["message"]
            if path == "/chat/completions":
                assert error["message"] == "the endpoint is at /v1: end the address with it"


def test_a_request_in_chunks_is_answered(tmp_path):
    whole = json.dumps(body()).encode()

    def chunks():
        yield whole[:100]
        yield whole[100:]

    with listening(scripted_model(), tmp_path) as address:
        answer = httpx.post(f"{address}/v1/chat/completions", content=chunks())
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_an_avif_picture_is_looked_at(tmp_path):
    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, "AVIF", quality=100, subsampling="4:4:4")
    with asking(scripted_model(), tmp_path) as client:
        found = client.chat.completions.create(**body(messages=messages(out.getvalue())))
    assert found.lfpc["first_view"] == [112, 112]


def test_a_picture_of_a_waiting_question_is_not_dropped_for_newer_ones(tmp_path):
    store = FileStore(tmp_path, 10)
    first = store.put(b"a" * 8, ".png")
    with store.held(first):
        second = store.put(b"b" * 8, ".png")
        third = store.put(b"c" * 8, ".png")
        assert [store.find(name) is not None for name in (first, second, third)] == [
            True,
            False,
            True,
        ]
    store.put(b"d" * 8, ".png")
    assert store.find(first) is None
