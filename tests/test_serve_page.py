"""The demo page's requests, without a browser; and the key of a public server."""

import json
from io import BytesIO

import httpx
import pytest
from asking_app import asked
from live_server import CALL, CONFIG, listening, scripted_model
from PIL import Image
from starlette.responses import PlainTextResponse

from lfpc.ask import live
from lfpc.errors import ConfigError
from lfpc.web.ask.keys import checked_key, keyed, knows_key
from lfpc.web.guard import guarded

KEY = "a key of some length"


@pytest.fixture
def address(tmp_path):
    with listening(scripted_model(), tmp_path) as address:
        yield address


def events(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


def ask(address, **fields):
    return httpx.post(
        f"{address}/ask", json={"picture": "test-00000", "question": "What?", **fields}
    )


def test_a_question_is_answered_in_lines(address):
    told = events(ask(address))
    assert [event["kind"] for event in told] == ["first", "turn", "turn", "turn", "end"]
    assert told[0]["view"] | {"src": ""} == {"src": "", "width": 112, "height": 112, "tokens": 16}
    assert [event.get("call") for event in told[1:4]] == [1, 2, None]
    assert told[1]["region"] == [0, 0, 0.5, 0.5]
    for event in told[:3]:
        picture = httpx.get(address + event["view"]["src"])
        assert picture.headers["content-type"] == "image/png"
    assert told[-1]["answer"] == told[3]["action"]["text"]
    assert told[-1]["visual_tokens"] == 48  # 16 and two crops of 16


def test_a_swap_replays_the_recorded_replies_and_continues(address):
    told = events(ask(address))
    again = events(
        httpx.post(
            f"{address}/swap", json={"id": told[0]["id"], "call": 2, "shown": [0.5, 0.5, 1, 1]}
        )
    )
    assert [event.get("replayed") for event in again] == [None, True, True, False, None]
    assert again[1]["view"] == told[1]["view"]
    assert (again[2]["shown"], again[2]["region"]) == ("box", [0.5, 0.5, 1, 1])
    assert again[2]["action"]["box"] == [0, 0, 0.5, 0.5]
    assert again[-1]["answer"] != told[-1]["answer"]


def test_truth_is_offered_for_the_examples_own_question_only(address):
    example = httpx.get(f"{address}/about").json()["examples"][0]
    assert "truth" in events(ask(address, question=example["question"]))[0]["swaps"]
    assert "truth" not in events(ask(address, question="Another question?"))[0]["swaps"]


def test_a_picture_that_was_sent_in_is_asked_about(address, picture):
    sent = httpx.post(f"{address}/pictures", content=picture().read_bytes()).json()
    assert sent["size"] == [400, 300]
    assert events(ask(address, picture=sent["id"]))[-1]["kind"] == "end"
    assert httpx.get(f"{address}/pictures/{sent['id']}").headers["content-type"] == "image/jpeg"


def test_a_large_original_is_shown_smaller(address, picture):
    data = picture(size=(4000, 500)).read_bytes()
    sent = httpx.post(f"{address}/pictures", content=data).json()
    shown = httpx.get(f"{address}/pictures/{sent['id']}").content
    assert Image.open(BytesIO(shown)).size == (1600, 200)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"picture": "gone.png"}, "the picture is no longer stored; send it again"),
        ({"picture": "../../etc/passwd"}, "no longer stored"),
        ({"picture": None}, "picture must be a text"),
        ({"question": " "}, "type a question"),
        ({"question": "?" * 4001}, "at most 4,000 characters"),
        ({"options": ["a"] * 27}, "at most 26 options"),
        ({"options": ["a" * 501]}, "at most 500 characters"),
        ({"budget": 0}, "from 1 to 16,384"),
        ({"budget": True}, "from 1 to 16,384"),
        ({"budget": "25"}, "from 1 to 16,384"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(address, fields, sentence):
    answer = ask(address, **fields)
    assert answer.status_code == 400
    assert sentence in answer.json()["problem"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"id": "0" * 32}, "no longer stored; ask it again"),
        ({"call": 0}, "no crop 0 to swap; the episode has 2"),
        ({"call": 3}, "no crop 3 to swap; the episode has 2"),
        ({"call": "1"}, "call must be the number"),
        ({"shown": "other"}, "swapped for own, noise, none, mean, blur, truth or a box"),
        ({"shown": [0.5, 0.5, 0.4, 1]}, "must satisfy"),
        ({"shown": [0, 0, 1]}, "a box of four fractions"),
        ({"shown": [0, 0, 1, True]}, "a box of four fractions"),
        ({"shown": {"a": 1}}, "a box of four fractions"),
    ],
)
def test_what_cannot_be_swapped_is_one_sentence(address, fields, sentence):
    name = events(ask(address))[0]["id"]
    answer = httpx.post(f"{address}/swap", json={"id": name, "call": 1, "shown": "noise", **fields})
    assert answer.status_code == 400
    assert sentence in answer.json()["problem"]


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"[" * 100_000])
def test_a_body_that_is_no_object_is_one_sentence(address, body):
    assert "must be a text" in httpx.post(f"{address}/ask", content=body).json()["problem"]


def test_a_failure_on_the_way_is_the_last_line(tmp_path):
    def fails_later(context):
        if context.turns:
            raise ValueError("a secret detail")
        return CALL

    with listening(scripted_model(fails_later), tmp_path) as address:
        last = events(ask(address))[-1]
    assert last == {
        "kind": "problem",
        "problem": "the question failed in the server (ValueError); its log says more",
    }


def test_a_question_too_many_is_refused_for_now(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "LONGEST_QUEUE", 0)
    with listening(scripted_model(), tmp_path) as address:
        assert "ask again in a moment" in events(ask(address))[0]["problem"]


def test_the_last_turns_crop_is_marked_as_the_last(tmp_path):
    with listening(scripted_model(lambda context: CALL), tmp_path) as address:
        told = events(ask(address))
    assert [event["last"] for event in told if event["kind"] == "turn"] == [False] * (
        CONFIG.max_turns - 1
    ) + [True]
    assert told[-1]["answer"] is None


@pytest.mark.parametrize(
    ("authorization", "known"),
    [
        (f"Bearer {KEY}", True),
        (f"bearer {KEY}", True),
        ("Basic OmEga2V5IG9mIHNvbWUgbGVuZ3Ro", True),  # ":" and the key
        ("Basic bWU6YSBrZXkgb2Ygc29tZSBsZW5ndGg=", True),  # "me:" and the key
        ("Basic %%%", False),
        ("Basic bWU=", False),
        ("Bearer another key of length", False),
        (f"Token {KEY}", False),
        ("", False),
    ],
)
def test_a_key_is_a_bearer_token_or_a_password(authorization, known):
    assert knows_key(authorization, KEY) == known


def test_a_public_server_answers_by_any_name_to_whoever_has_the_key():
    app = guarded(keyed(PlainTextResponse("in"), KEY), public=True)
    headers = {"host": "gpu-box:8017", "authorization": f"Bearer {KEY}"}
    assert asked(app, "GET", "/", headers=headers).text == "in"
    assert asked(app, "GET", "/", headers=headers | {"origin": "https://gpu-box:8017"}).text == "in"
    assert (
        asked(app, "GET", "/", headers=headers | {"origin": "https://example.org"}).status_code
        == 403
    )
    refused = asked(app, "GET", "/", headers={"host": "gpu-box:8017"})
    assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
    assert refused.json()["error"]["code"] == "invalid_api_key"


def test_a_public_server_without_a_good_key_does_not_start():
    with pytest.raises(
        ConfigError, match="--public needs a key of 16 characters or more in LFPC_API_KEY"
    ):
        checked_key(None, public=True)
    with pytest.raises(ConfigError, match="must have 16 ASCII characters or more; it has 5"):
        checked_key("short", public=False)
    assert checked_key("", public=False) is None
    assert checked_key(KEY, public=True) == KEY
