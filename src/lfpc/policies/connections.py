"""Connections to OpenAI-compatible servers: clients, a server's models, and the reasons of its
errors.

A server on this machine is asked without a proxy. The key comes from OPENAI_API_KEY.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from lfpc.errors import PolicyError

CONNECT_S = 60.0
"""Time-out of a connection, in seconds."""
LISTING_S = 20.0
"""Time-out of a request for a server's models, in seconds."""
MOST_NAMES = 10
"""Maximum models that an error lists."""
LONGEST_REASON = 300
"""Maximum characters of a server's reason in an error."""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_REASONS = ("message", "msg", "detail", "error", "errors", "error_description", "title")
"""Fields of error bodies with the reason, or with an object that holds it."""
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL | re.IGNORECASE)
_HINTS = {
    401: "set OPENAI_API_KEY",
    403: "set OPENAI_API_KEY",
    404: "is the model's name right, and does the address end in /v1?",
}


def async_client(base_url: str, *, timeout_s: float, retries: int) -> openai.AsyncOpenAI:
    """A client for many requests at once.

    Raises:
        PolicyError: a proxy variable of the environment is unusable.
    """
    with _usable_proxy(base_url):
        return openai.AsyncOpenAI(
            http_client=(
                openai.DefaultAsyncHttpxClient(trust_env=False) if on_loopback(base_url) else None
            ),
            **_options(base_url, timeout_s, retries),
        )


def client(base_url: str, *, timeout_s: float, retries: int) -> openai.OpenAI:
    """A client for one request at a time, or for threads; see `async_client`."""
    with _usable_proxy(base_url):
        return openai.OpenAI(
            http_client=(
                openai.DefaultHttpxClient(trust_env=False) if on_loopback(base_url) else None
            ),
            **_options(base_url, timeout_s, retries),
        )


def _options(base_url: str, timeout_s: float, retries: int) -> dict[str, Any]:
    return {
        "base_url": base_url,
        "api_key": os.environ.get("OPENAI_API_KEY") or "none",
        "timeout": openai.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
        "max_retries": retries,
    }


def on_loopback(base_url: str) -> bool:
    """Whether an address is one of this machine."""
    host = urlsplit(base_url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


@contextmanager
def _usable_proxy(base_url: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, ValueError) as error:  # of the HTTP library, for an odd address or scheme
        if not (names := _proxy_names()):
            raise
        raise PolicyError(
            f"{base_url}: the proxy in {names} cannot be used ({_short(str(error))}); "
            f"correct or unset it"
        ) from error


def _proxy_names() -> str:
    """Names of the proxy variables that are set."""
    return ", ".join(
        name for name, value in os.environ.items() if value and name.lower() in _PROXIES
    )


def request_error(base_url: str, error: openai.OpenAIError) -> PolicyError:
    """A failed request as an error with the server, the reason and, where known, the remedy."""
    if isinstance(error, openai.APIStatusError):
        hint = _HINTS.get(error.status_code)
        return PolicyError(f"{base_url}: {reason_of(error)}{f' ({hint})' if hint else ''}")
    cause = _short(str(error.__cause__ or error)) or type(error.__cause__ or error).__name__
    return PolicyError(f"{base_url}: {_short(str(error))} ({cause}){_proxy_hint(base_url)}")


def _proxy_hint(base_url: str) -> str:
    """A clause that names the proxy variables that a lost connection went through."""
    proxies = "" if on_loopback(base_url) else _proxy_names()
    return f"; asked through the proxy in {proxies}" if proxies else ""


def reason_of(error: openai.OpenAIError) -> str:
    """The reason of an error in one line: of a refusal its status and what the server says.

    The client's own text holds a body of OpenAI's shape only.
    """
    if not isinstance(error, openai.APIStatusError):
        said = _short(str(error)) or type(error).__name__
        lost = isinstance(error, openai.APIConnectionError)
        return said + (_proxy_hint(str(error.request.url)) if lost else "")
    said = body_reason(error.response.text)
    return f"Error code: {error.status_code}{f' - {said}' if said else ''}"


def body_reason(body: str) -> str:
    """What the body of an error says, in one line: the message inside any of the usual JSON shapes,
    the title of a page, or the text itself.
    """
    try:
        return _short(_message(json.loads(body)) or body)
    except (ValueError, RecursionError):
        titled = _TITLE.search(body) if body.lstrip().startswith("<") else None
        return _short(titled.group(1) if titled else body)


def _message(found: Any) -> str:
    match found:
        case str():
            return found
        case list():
            return "; ".join(filter(None, map(_message, found)))
        case dict():
            said = next(filter(None, (_message(found.get(name)) for name in _REASONS)), "")
            place = found.get("loc")  # of a validation error
            where = ".".join(map(str, place)) if isinstance(place, list) else found.get("param")
            return f"{where}: {said}" if said and where and str(where) not in said else said
        case _:
            return ""


def _short(text: str) -> str:
    return " ".join(text.split())[:LONGEST_REASON]


def model_names(base_url: str) -> list[str]:
    """The names in the server's list of models, `GET /v1/models`.

    Raises:
        openai.OpenAIError: no list from the server.
        ValueError: a list of another form.
    """
    with client(base_url, timeout_s=LISTING_S, retries=0) as asked:
        response = asked.get("/models", cast_to=openai.HttpxBinaryResponseContent)
        found = json.loads(response.content)
    try:
        return [str(one["id"]) for one in (found["data"] if isinstance(found, dict) else found)]
    except (LookupError, TypeError) as error:
        raise ValueError("not a list of models") from error


@lru_cache(maxsize=64)  # failures are not cached
def check_model(base_url: str, model: str) -> None:
    """Ask the server for its models, before any question; once in a process.

    A server that gives no list, or not in time, may still know the model. So may one that loads
    `model` from a folder.

    Raises:
        PolicyError: no server answers at the address, it wants a key, or it has other models.
    """
    try:
        names = model_names(base_url)
    except openai.APIStatusError as error:
        if error.status_code == 401 and not os.environ.get("OPENAI_API_KEY"):
            raise request_error(base_url, error) from error
        return
    except openai.APIConnectionError as error:
        if type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout"):
            return
        found = request_error(base_url, error)
        raise PolicyError(f"{found}; is the server running, and is its address right?") from error
    except (openai.OpenAIError, ValueError, RecursionError):
        return
    if names and not Path(model).is_dir() and not any(_same(model, name) for name in names):
        others = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        raise PolicyError(
            f"{base_url} has no model {model!r}; it has {', '.join(names[:MOST_NAMES])}{others}"
        )


def _same(model: str, name: str) -> bool:
    """Whether a server that lists `name` accepts `model`: the same, or one without the prefix
    (models/), tag (:latest) or revision (@main) of the other.
    """
    if model == name:
        return True
    tagged = ":" in model and ":" in name
    return not tagged and _stem(model) == _stem(name)


def _stem(name: str) -> str:
    return re.split("[:@]", name.removeprefix("models/"))[0]
