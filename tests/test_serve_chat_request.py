"""What the endpoint makes of requests: no server, no model."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc.web.ask.chat_request import ApiError, picture_of_url, read_request

PICTURE = "data:image/png;base64," + base64.b64encode(b"PNG bytes").decode()


def image(url=PICTURE):
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def user(*parts):
    return {
        "role": "user",
        "content": [
            {"type": "text", "text": part} if isinstance(part, str) else part for part in parts
        ],
    }


def body(**fields):
    return {"model": "m", "messages": [user(image(), "Which letter?")], **fields}


def refused(found):
    with pytest.raises(ApiError) as caught:
        read_request(found)
    return caught.value


def test_a_picture_and_a_question_are_a_request():
    request = read_request(
        body(
            temperature=0.5,
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
            seed=3,
        )
    )
    assert (request.question, request.picture) == ("Which letter?", b"PNG bytes")
    assert (
        request.temperature,
        request.max_tokens,
        request.seed,
        request.stream,
        request.include_usage,
    ) == (0.5, 20, 3, True, True)
    assert request.ignored == ()


def test_a_follow_up_is_about_the_last_picture_that_was_sent():
    other = image("data:image/png;base64," + base64.b64encode(b"an earlier one").decode())
    messages = [
        {"role": "system", "content": "Be brief."},
        user(other, "What colour?"),
        {"role": "assistant", "content": "red"},
        user(image(), "Which letter?"),
        {"role": "assistant", "content": "K"},
        {"role": "user", "content": "And its colour?"},
    ]
    request = read_request(body(messages=messages))
    assert (request.question, request.picture) == ("And its colour?", b"PNG bytes")
    assert request.ignored == ("system messages", "texts of earlier messages")


def test_options_that_ask_for_what_happens_anyway_are_taken():
    usual = {"modalities": ["text"], "response_format": {"type": "text"}, "n": 1, "tools": []}
    assert read_request(body(**usual)).ignored == ()
    assert refused(body(modalities=["text", "audio"])).body["error"]["param"] == "modalities"


def test_every_ignored_option_is_named():
    found = read_request(
        body(
            store=True,
            metadata={"a": "b"},
            service_tier="flex",
            parallel_tool_calls=False,
            stream_options={"include_usage": True, "include_obfuscation": True},
            safety_identifier="me",
        )
    )
    assert found.ignored == (
        *("store", "metadata", "service_tier", "parallel_tool_calls"),
        "stream_options.include_obfuscation",
    )


def test_base64_with_line_breaks_is_read():
    data = base64.encodebytes(b"x" * 100).decode()
    assert data.count("\n") > 1
    assert picture_of_url(f"data:image/png;base64,{data}") == b"x" * 100
    assert picture_of_url("data:image/png;base64," + data.replace("\n", "\r\n ")) == b"x" * 100


def test_options_that_change_nothing_here_are_named():
    assert read_request(
        body(presence_penalty=0.5, user="me", top_k=4, logit_bias=None)
    ).ignored == ("presence_penalty", "top_k")


@pytest.mark.parametrize(
    ("fields", "param", "sentence"),
    [
        ({"n": 2}, "n", "n can only be 1"),
        ({"tools": [{"type": "function"}]}, "tools", "own crop tool"),
        ({"response_format": {"type": "json_object"}}, "response_format", "can only be text"),
        ({"temperature": 3}, "temperature", "a number from 0 to 2"),
        ({"temperature": float("nan")}, "temperature", "a number from 0 to 2"),
        ({"temperature": True}, "temperature", "a number from 0 to 2"),
        ({"max_tokens": 0}, "max_tokens", "a whole number from 1"),
        ({"model": None}, "model", "must be a text"),
        ({"messages": []}, "messages", "no user message"),
        ({"messages": "hello"}, "messages", "must be a list"),
        (
            {"messages": [user("Which letter?")]},
            "messages",
            "no picture in the user's messages; send one",
        ),
        ({"messages": [user(image())]}, "messages", "has no text"),
        ({"messages": [user(image(), image(), "Which?")]}, "messages", "there are 2 pictures in"),
        (
            {"messages": [user({"type": "input_audio"}, "Which?")]},
            "messages",
            "parts of type text or image_url",
        ),
        (
            {"messages": [user(image(), "?" * 20_001)]},
            "messages",
            "20,001 characters; the maximum is 20,000",
        ),
    ],
)
def test_what_cannot_be_answered_names_its_parameter(fields, param, sentence):
    error = refused(body(**fields))
    assert sentence in str(error)
    assert error.body["error"]["param"] == param
    assert error.status == 400


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.png",
        "https://127.0.0.1/a.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "FILE:///x",
    ],
)
def test_nothing_is_fetched(url):
    assert "not fetched" in str(refused(body(messages=[user(image(url), "Which?")])))


@pytest.mark.parametrize(
    "url", ["data:image/png,abc", "data:image/png;base64,%%%", "data:image/png;base64,Y"]
)
def test_a_data_uri_that_is_no_base64_is_refused(url):
    with pytest.raises(ApiError, match="base64"):
        picture_of_url(url)


@pytest.mark.parametrize("data", ["+/8A", "-_8A", "%2B%2F8A", "+/\r\n8A", " +/8A\n"], ids=ascii)
@pytest.mark.parametrize("rest", ["", "YQ==", "YQ", "YWI=", "YWI"])
def test_base64_is_taken_as_browsers_and_programs_write_it(data, rest):
    content = picture_of_url(f"data:image/png;base64,{data}{rest}")
    assert content == b"\xfb\xff\0" + {"": b"", "YQ": b"a", "YW": b"ab"}[rest[:2]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*body(), "n", "role", "content", "type", "text", "tools"]), inner
        )
    ),
    max_leaves=12,
)


@given(
    JSON,
    st.dictionaries(
        st.sampled_from(
            ["temperature", "top_p", "max_tokens", "seed", "n", "stream_options", "stop"]
        ),
        JSON,
    ),
)
def test_whatever_is_sent_is_a_request_or_a_refusal(junk, fields):
    for found in (
        junk,
        body(**fields),
        body(messages=junk),
        body(messages=[{"role": "user", "content": junk}]),
    ):
        try:
            read_request(found)
        except ApiError as error:
            json.dumps(error.body)
