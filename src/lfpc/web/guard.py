"""What every request is checked for, and what every answer says to the browser.

A server on loopback is still reached by every page that the person's browser has open. So the Host
header has to be this server's own address (a foreign name that was made to point at 127.0.0.1 is
refused), a request that another site started is refused, and every answer carries a content policy
that runs and loads nothing but the server's own files.
"""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from lfpc.errors import PictureError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")
"""What the address bar may call this machine."""
LARGEST_BODY = 1 << 20
"""Bytes of a request; `guarded` takes another bound where pictures are sent in."""
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
    """`app`, asked only by this machine's own pages and programs, with `ANSWER_HEADERS` on every
    answer, refusals included.

    Args:
        app: a Starlette application.
        largest_body: bytes a request may have.
        public: other machines may ask too, by any name of this one; `app` has to check who they
            are.
    """

    async def checked(scope: "Scope", receive: "Receive", send: "Send") -> None:
        async def with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(ANSWER_HEADERS)
            await send(message)

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
            answer = PlainTextResponse(sentence, status) if status else app
            await answer(scope, receive, with_headers)

    return checked  # a websocket gets no answer: nothing here speaks it


def refusal(
    method: str,
    headers: "Headers",
    port: int,
    largest_body: int = LARGEST_BODY,
    *,
    public: bool = False,
) -> tuple[int, str]:
    """(HTTP status, sentence) of why a request is refused; (0, "") where it is not.

    Programs send neither Origin nor Sec-Fetch-Site, browsers send one of them with everything that
    another site can start.

    Args:
        method: of the request.
        headers: of the request.
        port: where the server listens.
        largest_body: bytes the request may have.
        public: any Host is this server's own; the site that asks must still be that one.
    """
    allowed = {headers.get("host", "")} if public else {f"{name}:{port}" for name in NAMES}
    schemes = ("http://", "https://") if public else ("http://",)  # https: by a proxy in front
    if headers.get("host", "") not in allowed:
        return 403, f"this server answers at {' and '.join(sorted(allowed))} only"
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "none")
    if origin is not None and (
        not origin.startswith(schemes) or urlsplit(origin).netloc not in allowed
    ):
        return 403, "another site's page asked; open this server's own page"
    reads = method in ("GET", "HEAD")
    followed_link = reads and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and not followed_link:
        return 403, "another site's page asked; open this server's own page"
    if not reads and (
        "content-length" not in headers or "transfer-encoding" in headers
    ):  # of both, the second would be read
        return 411, "a request that writes says how long it is (Content-Length)"
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdecimal() or int(length) > largest_body:
        return 413, f"a request has at most {largest_body:,} bytes"
    return 0, ""


def file_within(path: Path, folders: "Iterable[Path]") -> Path:
    """`path` with every link followed, if it lies in one of `folders`.

    Raises:
        PictureError: it lies elsewhere, whatever way its name takes.
    """
    real = path.resolve()
    roots = [folder.resolve() for folder in folders]
    if not any(real.is_relative_to(root) for root in roots):
        raise PictureError(
            f"{path} lies outside {' and '.join(map(str, roots))}; name its folder with "
            f"--pictures to have it shown"
        )
    return real
