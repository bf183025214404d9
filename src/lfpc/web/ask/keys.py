"""The key of a public server."""

import base64
import hmac
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from lfpc.errors import ConfigError
from lfpc.web.ask.chat_request import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

KEY_VARIABLE = "LFPC_API_KEY"
SHORTEST_KEY = 16
"""Minimum characters of a key, as attempts are not limited."""


def checked_key(key: str | None, *, public: bool) -> str | None:
    """The key that clients need; None: no key.

    Raises:
        ConfigError: a public server without a key, or a weak key.
    """
    if public and not key:
        raise ConfigError(
            f"--public needs a key of {SHORTEST_KEY} characters or more in {KEY_VARIABLE}; "
            f"clients must send it"
        )
    if key and (len(key) < SHORTEST_KEY or not key.isascii()):
        raise ConfigError(
            f"the key in {KEY_VARIABLE} must have {SHORTEST_KEY} ASCII characters or more; "
            f"it has {len(key)}"
        )
    return key or None


def keyed(app: "ASGIApp", key: str) -> "ASGIApp":
    """`app` behind `key`: programs send it as a bearer token, browsers ask for it as a password."""

    async def checked(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "http" and not knows_key(
            Headers(scope=scope).get("authorization", ""), key
        ):
            error = ApiError(
                "this server needs its key, as a bearer token or as the password of any user",
                status=401,
                code="invalid_api_key",
            )
            answer = JSONResponse(
                error.body,
                error.status,
                headers={"www-authenticate": 'Basic realm="lfpc", charset="UTF-8"'},
            )
            await answer(scope, receive, send)
        else:
            await app(scope, receive, send)

    return checked


def knows_key(authorization: str, key: str) -> bool:
    """Whether an Authorization header holds the key."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given).decode("utf-8", "replace").partition(":")[2]
        except ValueError:  # invalid base64
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode("utf-8", "replace"), key.encode())
