"""Clients of OpenAI-compatible servers: the key, and the proxy variables of the environment.

A server on this machine is asked without a proxy, which could not reach it.
"""

import os
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from lfpc.errors import PolicyError, first_line

Client = TypeVar("Client", openai.OpenAI, openai.AsyncOpenAI)


def client_of(cls: type[Client], url: str, **options: Any) -> Client:
    """A client of the server at `url`. The key comes from OPENAI_API_KEY.

    Args:
        cls: the openai client's class.
        url: base address of the API.
        options: further arguments of `cls`.
    Raises:
        PolicyError: the client cannot use a proxy variable; names it.
    """
    http: Any = (
        openai.DefaultHttpxClient if cls is openai.OpenAI else openai.DefaultAsyncHttpxClient
    )
    try:
        return cls(
            base_url=url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            http_client=http(trust_env=not is_loopback(url)),
            **options,
        )
    except (ValueError, ImportError) as error:
        raise PolicyError(
            f"{url}: no client ({first_line(error)}){proxy_hint(url)}; unset it, or add the "
            f"server to NO_PROXY"
        ) from error


def is_loopback(url: str) -> bool:
    """Whether `url` is an address of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def proxy_hint(url: str) -> str:
    """A clause for a message, which names the proxy variables that apply to `url`; empty without
    any. Their values may hold a password and are not shown.
    """
    if is_loopback(url):
        return ""
    wanted = (f"{urlsplit(url).scheme}_proxy", "all_proxy")
    names = [name for name in os.environ if name.lower() in wanted and os.environ[name]]
    return f", asked through the proxy of {' and '.join(sorted(names))}" if names else ""
