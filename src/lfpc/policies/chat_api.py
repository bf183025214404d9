"""The words of the chat-completions API: our messages into a request, the server's answer into a
Reply. No network here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from lfpc.dialogue import Reply, Usage
from lfpc.errors import PolicyError
from lfpc.policies.picture_urls import PictureUrls
from lfpc.protocols import Message, MessagePart

WRITE_ON = {"add_generation_prompt": False, "continue_final_message": True}
"""vLLM's and SGLang's words for: the last message is the model's own, and unfinished."""
_STOPPED_BY = ("stop_reason", "matched_stop")
"""Where vLLM and SGLang say which stop text ended a reply (null: none did)."""


def chat_messages(messages: Sequence[Message], urls: PictureUrls) -> list[dict[str, Any]]:
    """`messages` in the API's words; a message without pictures has its text as plain content.

    Assistant messages that follow each other become one. The text of a call stays in its reply, so
    a tool's message names a call by a number only because the API wants a name.
    """
    found: list[dict[str, Any]] = []
    for role, some in groupby(messages, key=lambda message: message.role):
        contents = [message.parts for message in some]
        if role == "assistant":
            contents = [tuple(chain(*contents))]
        found += [{"role": role, "content": _content(parts, urls)} for parts in contents]
        if role == "tool":
            found[-1]["tool_call_id"] = f"call_{len(found)}"
    return found


def _content(parts: Sequence[MessagePart], urls: PictureUrls) -> str | list[dict[str, Any]]:
    """Texts that follow each other are one: some servers put line breaks between texts."""
    joined: list[MessagePart] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    joined = [valid_text(part) if isinstance(part, str) else part for part in joined]
    if len(joined) == 1 and isinstance(joined[0], str):
        return joined[0]
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": urls.url(part)}}
        for part in joined
    ]


def valid_text(text: str) -> str:
    """`text` as it is, but for halves of surrogate pairs, which cannot be sent: they become
    U+FFFD.
    """
    return (
        text
        if text.isascii()
        else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


class NoReply(Exception):
    """A 200 that holds no reply."""


def read_reply(
    body: bytes, stop: Sequence[str], call_text: Callable[[str, str], str] | None = None
) -> Reply:
    """The reply in the body of a chat completion.

    Args:
        body: whatever the server sent.
        stop: the texts that end a reply; one that the server cut off is put back.
        call_text: makes text of calls that the server hands out apart, see
            `ChatProtocol.call_text`; None: there should be none.
    Raises:
        NoReply: there is none.
        PolicyError: the server has taken the tool call out of the text.
    """
    try:
        found = json.loads(body)
        choice = found["choices"][0]
        message = choice["message"]
        text = message.get("content")
        finish = choice.get("finish_reason")
        calls = message.get("tool_calls")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise NoReply(f"a 200 without a reply: {body[:200]!r}") from error
    if calls and call_text:
        try:
            text = (text or "") + "".join(
                call_text(str(call["function"]["name"]), str(call["function"]["arguments"]))
                for call in calls
            )
        except (LookupError, TypeError) as error:
            raise NoReply(f"a call without a name or arguments: {body[:200]!r}") from error
    if text is None and calls:
        raise PolicyError(
            "the server put the tool call elsewhere than into the reply's text; start it "
            "without a tool-call parser"
        )
    if not isinstance(text, str | None):
        raise NoReply(f"a reply that is no text: {body[:200]!r}")
    text = valid_text(text or "")
    if finish != "length":
        text = with_stop(text, stop, choice)
    return Reply(
        text, usage=_usage(found.get("usage")), finish=finish if isinstance(finish, str) else ""
    )


def with_stop(text: str, stop: Sequence[str], choice: Mapping[str, Any]) -> str:
    """`text` with the stop text that ended it, where the server cut that off.

    Servers that say which one it was are believed. Of the others, a stop text that is a closing tag
    (`</answer>`) is put back if its tag is still open: the tag that was opened last.
    """
    if not text or text.endswith(tuple(stop)):
        return text
    for key in _STOPPED_BY:
        if key in choice:
            return text + choice[key] if choice[key] in stop else text
    still_open = {end: text.rfind(f"<{end[2:]}") for end in stop if end.startswith("</")}
    still_open = {end: at for end, at in still_open.items() if at > text.rfind(end)}
    return text + max(still_open, key=lambda end: still_open[end], default="")


def _usage(found: Any) -> Usage | None:
    if not isinstance(found, dict):
        return None
    read = found.get("prompt_tokens")
    written = found.get("completion_tokens")
    return Usage(read, written) if isinstance(read, int) and isinstance(written, int) else None
