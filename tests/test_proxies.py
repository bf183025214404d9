"""Clients of servers under the proxy variables of the environment."""

import pytest
from chat_server import ChatServer
from test_served import policy_of, questions, records_of

from lfpc.errors import ConfigError, PolicyError
from lfpc.evaluation.judge import only_model
from lfpc.policies.backends import Server
from lfpc.policies.connections import async_client, client, on_loopback

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:7890/"),
        ("all_proxy", "socks5://127.0.0.1:7890"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
    ],
)
def test_a_server_on_this_machine_is_asked_without_a_proxy(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    samples = questions(tmp_path / "data", 2)
    with ChatServer() as server:
        records = records_of(tmp_path / "run", samples, policy_of(server, retries=0))
    assert not any(record.failed for record in records)


@pytest.mark.parametrize("make", [client, async_client])
def test_a_variable_that_breaks_the_client_is_named(monkeypatch, make):
    monkeypatch.setenv("ALL_PROXY", "socks://user:secret@127.0.0.1:7890/")
    with pytest.raises(PolicyError, match=r"the proxy in ALL_PROXY cannot be used") as refused:
        make("http://models.example.org/v1", timeout_s=1.0, retries=0)
    assert "secret" not in str(refused.value)


def test_a_request_that_a_proxy_loses_names_the_variable(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(Exception, match="asked through the proxy in http_proxy"):
        only_model("http://models.example.org/v1")


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("http://10.0.0.1:8000/v1", False),
        ("https://localhost.example.org/v1", False),
    ],
)
def test_addresses_of_this_machine(url, own):
    assert on_loopback(url) == own


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/v1", "http://127.0.0.1:x/v1", "http:///v1"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="is not the address of an API"):
        Server(base_url=url)
