"""The key of a server that other machines may ask."""

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
"""Characters; nothing slows down whoever tries keys."""


def checked_key(key: str | None, *, public: bool) -> str | None:
    """The key that is asked for, None for none.

    Raises:
        ConfigError: a public server without one, or one that is easily guessed.
    """
    if public and not key:
        raise ConfigError(
            f"--public needs a key of {SHORTEST_KEY} characters or more in {KEY_VARIABLE}; "
            f"others are asked for it"
        )
    if key and (len(key) < SHORTEST_KEY or not key.isascii()):
        raise ConfigError(
            f"the key in {KEY_VARIABLE} must have {SHORTEST_KEY} ASCII characters or more; "
            f"it has {len(key)}"
        )
    return key or None


def keyed(app: "ASGIApp", key: str) -> "ASGIApp":
    """`app`, for whoever knows `key`: programs send it as a bearer token, browsers ask the person
    for it as a password.
    """

    async def checked(scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "http" and not knows_key(
            Headers(scope=scope).get("authorization", ""), key
        ):
            error = ApiError(
                "this server asks for its key, as a bearer token or as the password to any name",
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
        except ValueError:  # no base64, or letters that it does not know
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode("utf-8", "replace"), key.encode())
