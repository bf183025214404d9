"""A chat-completions request: question, picture, sampling.

The picture is the last one that the user sent, the question the text of the user's last message.
Unsupported options are rejected if they change the kind of answer, else listed in the answer's
`ignored`.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from lfpc.errors import LfpcError
from lfpc.web.guard import error_body

_SYSTEM = ("system", "developer")
_FROM_URLS = str.maketrans("-_", "+/")
"""The two characters by which base64 for URLs differs."""
LONGEST_QUESTION = 20_000
"""Maximum characters of a question."""
HONOURED = (
    *("model", "messages", "n", "stream", "stream_options"),
    *("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed"),
)
REFUSED = (
    "tools",
    "functions",
    "logprobs",
    "top_logprobs",
    "stop",
    "modalities",
    "audio",
    "web_search_options",
)
"""Options that change the kind of answer, with their unset values, which are accepted."""
_WITHOUT_MEANING = ("user", "safety_identifier", "prompt_cache_key")
"""Options without effect on any answer, which are not listed as ignored."""
_USUAL = {"modalities": ["text"], "response_format": {"type": "text"}, "n": 1}
"""Values of options that ask for what the endpoint does anyway."""


class ApiError(LfpcError):
    """A rejected request as an API error: HTTP status, kind, parameter, code."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, kind=kind, param=param, code=code)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A client's request."""

    model: str
    question: str
    picture: bytes
    """The picture's file, decoded from its data URI and unchecked."""
    stream: bool = False
    include_usage: bool = False
    """Whether a stream ends with the token usage."""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    """Token limit of the answer."""
    seed: int | None = None
    ignored: tuple[str, ...] = ()
    """Ignored options of the request."""


def read_request(body: Any) -> ChatRequest:
    """The request in a JSON body of any shape.

    Raises:
        ApiError: an invalid or unsupported request; names the parameter.
    """
    if not isinstance(body, dict):
        raise ApiError("the request must be a JSON object")
    body = {name: value for name, value in body.items() if _USUAL.get(name) != value}
    for name in REFUSED:
        if body.get(name):
            raise ApiError(
                f"{name} is unsupported: the model has its own crop tool and answers in text",
                param=name,
            )
    if body.get("response_format") is not None:
        raise ApiError("response_format can only be text", param="response_format")
    if body.get("n") is not None:
        raise ApiError("n can only be 1", param="n")
    options = body.get("stream_options") or {}
    longest = _whole(body, "max_completion_tokens", 1, 2**20) or _whole(
        body, "max_tokens", 1, 2**20
    )
    question, picture, passed_over = read_messages(body.get("messages"))
    known = {*HONOURED, *REFUSED, *_WITHOUT_MEANING, "response_format"}
    return ChatRequest(
        model=_text(body, "model"),
        question=question,
        picture=picture,
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        temperature=_number(body, "temperature", 0, 2),
        top_p=_number(body, "top_p", 1e-6, 1),
        max_tokens=longest,
        seed=_whole(body, "seed", 0, 2**63 - 1),
        ignored=(
            *passed_over,
            *(name for name in map(str, body) if name not in known and body[name] is not None),
            *(
                f"stream_options.{name}"
                for name in (options if isinstance(options, dict) else ())
                if name != "include_usage"
            ),
        ),
    )


def read_messages(messages: Any) -> tuple[str, bytes, tuple[str, ...]]:
    """(question, picture's file, ignored parts) of a conversation.

    Raises:
        ApiError: no user message, no text in the last one, no picture, or several in its message.
    """
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ApiError("messages must be a list of messages", param="messages")
    users = [
        _parts(message.get("content")) for message in messages if message.get("role") == "user"
    ]
    if not users:
        raise ApiError("messages has no user message", param="messages")
    question = "\n".join(part["text"] for part in users[-1] if "text" in part).strip()
    if not question:
        raise ApiError("the last user message has no text, which is the question", param="messages")
    if len(question) > LONGEST_QUESTION:
        raise ApiError(
            f"the question has {len(question):,} characters; the maximum is {LONGEST_QUESTION:,}",
            param="messages",
        )
    urls = next(
        (
            urls
            for parts in reversed(users)
            if (urls := [part["url"] for part in parts if "url" in part])
        ),
        [],
    )
    if len(urls) != 1:
        found = (
            f"there are {len(urls)} pictures in one message"
            if urls
            else "there is no picture in the user's messages"
        )
        raise ApiError(f"{found}; send one, as an image_url with a data URI", param="messages")
    roles = [message.get("role") for message in messages]
    others = len(users) - 1 + sum(role not in ("user", *_SYSTEM) for role in roles)
    passed_over = ["system messages"] if any(role in _SYSTEM for role in roles) else []
    return (
        question,
        picture_of_url(urls[0]),
        (*passed_over, *(["texts of earlier messages"] if others else [])),
    )


def _parts(content: Any) -> list[dict[str, str]]:
    """The parts of a message: {"text": ...} and {"url": ...}."""
    parts: Sequence[Any] = (
        [{"type": "text", "text": content}] if isinstance(content, str) else content
    )
    found: list[dict[str, str]] = []
    for part in parts if isinstance(parts, list) else [None]:
        match part:
            case {"type": "text", "text": str() as text}:
                found.append({"text": text})
            case {"type": "image_url", "image_url": {"url": str() as url}}:
                found.append({"url": url})
            case _:
                raise ApiError(
                    "a message's content is a text, or a list of parts of type text or image_url",
                    param="messages",
                )
    return found


def picture_of_url(url: str) -> bytes:
    """The file in a data URI, whose base64 may be percent-encoded, in the alphabet of URLs, without
    padding or with line breaks. Addresses of the network or of local files are rejected.

    Raises:
        ApiError: another kind of address, or invalid base64.
    """
    head, comma, data = url.partition(",")
    if not head.lower().startswith("data:") or not comma:
        what = f"{url.split(':', 1)[0][:10]}: addresses" if ":" in url[:12] else "paths"
        raise ApiError(
            f"{what} are not fetched by this server; send the picture itself, as "
            f"data:image/png;base64,...",
            param="messages",
            code="invalid_image_url",
        )
    if not head.lower().endswith(";base64"):
        raise ApiError(
            "the picture's data URI is not in base64", param="messages", code="invalid_image_url"
        )
    try:
        text = "".join(unquote(data).split()).translate(_FROM_URLS).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise ApiError(
            "the picture's data URI is no valid base64", param="messages", code="invalid_image_url"
        ) from error


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise ApiError(f"{name} must be a text", param=name)
    return value


def _number(body: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ApiError(f"{name} must be a number from {least:g} to {most:g}", param=name)
    return float(value)


def _whole(body: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ApiError(f"{name} must be a whole number from {least} to {most}", param=name)
    return value
