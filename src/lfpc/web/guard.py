"""Checks of every request, and security headers of every answer.

Every page in the user's browser can reach a server on loopback. The Host header must therefore be
this server's own address, which defeats foreign names that resolve to 127.0.0.1. Requests from
other sites are refused, and every answer carries a content policy that allows only the server's own
files.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse

from lfpc.errors import PictureError
from lfpc.picture_files import real_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")
"""Accepted host names of this machine."""
API = "/v1/"
"""Start of the paths for programs, whose refusals have OpenAI's shape."""
LARGEST_BODY = 1 << 20
"""Default maximum bytes of a request."""
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action "
    "'none'; frame-ancestors 'none'"
)
ANSWER_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "same-origin",
}


def guarded(app: "ASGIApp", *, largest_body: int = LARGEST_BODY, public: bool = False) -> "ASGIApp":
    """`app` for this machine's own pages and programs only, with `ANSWER_HEADERS` on every answer,
    refusals included.

    Args:
        app: a Starlette application.
        largest_body: maximum bytes of a request.
        public: whether other machines may send requests, by any name of this one; `app` must check
            who they are.
    """

    async def checked(scope: "Scope", receive: "Receive", send: "Send") -> None:
        async def with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(ANSWER_HEADERS)
            await send(message)

        read = 0

        async def counted() -> "Message":
            """The next part of the body, which may come in chunks of unknown number."""
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > largest_body:
                raise HTTPException(413, _too_large(largest_body))
            return message

        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif scope["type"] == "http":
            status, sentence = refusal(
                scope["method"],
                Headers(scope=scope),
                scope["server"][1],
                largest_body,
                public=public,
            )
            answer = refused(scope["path"], sentence, status) if status else app
            await answer(scope, counted, with_headers)

    return checked  # websockets are not supported


def refused(path: str, sentence: str, status: int) -> "ASGIApp":
    """A refusal, in OpenAI's shape for programs."""
    if path.startswith(API):
        return JSONResponse(error_body(sentence), status)
    return PlainTextResponse(sentence, status)


def error_body(
    message: str, *, kind: str = "invalid_request_error", param: str = "", code: str = ""
) -> "dict[str, Any]":
    """An error in OpenAI's shape."""
    return {
        "error": {"message": message, "type": kind, "param": param or None, "code": code or None}
    }


def _too_large(largest_body: int) -> str:
    return f"a request has at most {largest_body:,} bytes"


def refusal(
    method: str,
    headers: "Headers",
    port: int,
    largest_body: int = LARGEST_BODY,
    *,
    public: bool = False,
) -> tuple[int, str]:
    """(HTTP status, reason) of a refused request; (0, "") for an accepted one.

    Programs send neither Origin nor Sec-Fetch-Site; browsers send one of them with every request
    from another site.

    Args:
        method: HTTP method.
        headers: headers of the request.
        port: port of the server.
        largest_body: maximum bytes of a request.
        public: whether any Host is accepted; the requesting site must still be that one.
    """
    allowed = {headers.get("host", "")} if public else {f"{name}:{port}" for name in NAMES}
    schemes = ("http://", "https://") if public else ("http://",)  # https: behind a proxy
    if headers.get("host", "") not in allowed:
        return 403, f"this server answers at {' and '.join(sorted(allowed))} only"
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "none")
    if origin is not None and (
        not origin.startswith(schemes) or urlsplit(origin).netloc not in allowed
    ):
        return 403, "request from another site's page; open this server's own page"
    reads = method in ("GET", "HEAD")
    followed_link = reads and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and not followed_link:
        return 403, "request from another site's page; open this server's own page"
    if not reads and ("content-length" in headers) == ("transfer-encoding" in headers):
        return 411, "a request with a body needs Content-Length, or chunks, and not both"
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdecimal() or int(length) > largest_body:
        return 413, _too_large(largest_body)
    return 0, ""


def file_within(path: Path, folders: "Iterable[Path]") -> Path:
    """`path` with links resolved, if it is in one of `folders`.

    Raises:
        PictureError: it is elsewhere, or nowhere.
    """
    real = real_path(path)
    roots = [folder.resolve() for folder in folders]
    if not any(real.is_relative_to(root) for root in roots):
        raise PictureError(
            f"{path} is outside {' and '.join(map(str, roots))}; name its folder with "
            f"--pictures to have it shown"
        )
    return real
