"""`lfpc serve` as it is started: what it refuses, a served model behind it, and a public server."""

import base64

import httpx
import openai
import pytest
from browser import served
from chat_server import ChatServer

from lfpc.cli import main

KEY = "a key of some length"
SERVED = ("--base-url", "http://127.0.0.1:1/v1", "--model", "m")


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("LFPC_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("options", "key", "sentence"),
    [
        (("--model", "m"), "", "give either --checkpoint, or --base-url and --model"),
        (
            (*SERVED, "--public"),
            "",
            "--public needs a key of 16 characters or more in LFPC_API_KEY",
        ),
        (
            SERVED,
            "short",
            "the key in LFPC_API_KEY must have 16 ASCII characters or more; it has 5",
        ),
        ((*SERVED, "--budget", "0"), "", "budget must be at least 1 visual token, got 0"),
        ((*SERVED, "--port", "99999"), "", "port 99999 of 127.0.0.1 cannot be used"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(monkeypatch, capsys, options, key, sentence):
    monkeypatch.setenv("LFPC_API_KEY", key)
    assert main(["serve", *options]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_a_public_server_asks_for_its_key_and_zooms_with_a_served_model(monkeypatch, picture):
    monkeypatch.setenv("LFPC_API_KEY", KEY)
    url = "data:image/png;base64," + base64.b64encode(picture().read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Which letter?"},
    ]
    with (
        ChatServer() as model,
        served(
            "serve",
            "--public",
            "--port",
            "0",
            "--base-url",
            model.base_url,
            "--model",
            "scripted",
            "--budget",
            "16",
        ) as server,
    ):
        assert httpx.get(server.address).status_code == 401
        assert (
            httpx.get(
                f"{server.address}/about", auth=("me", KEY), headers={"host": "gpu-box"}
            ).json()["model"]
            == "scripted"
        )
        with pytest.raises(openai.AuthenticationError, match="needs its key"):
            openai.OpenAI(base_url=f"{server.address}/v1", api_key="another").models.list()
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key=KEY)
        found = client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": content}]
        )
        assert found.lfpc["turns"][0]["action"]["kind"] == "crop"
        assert found.usage.prompt_tokens == sum(
            100 * len(request["messages"]) for request in model.requests
        )
        client.close()
