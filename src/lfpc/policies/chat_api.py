"""Conversions of the chat-completions API: our messages to a request, a response to a Reply. No
network access.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import chain, groupby
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from lfpc.dialogue import STOPPED, TRUNCATED, Reply, Usage
from lfpc.errors import DiskError, PolicyError
from lfpc.images import View, png_bytes
from lfpc.policies.config import TextLogprob
from lfpc.policies.texts import harmless_reply, harmless_text, valid_text
from lfpc.protocols import ChatProtocol, Message, MessagePart
from lfpc.storage.files import atomic_file


class PictureUrls:
    """Addresses of views: data URLs, or files in a folder, named by their pixels.

    An address is cached for the lifetime of its view, so no picture of an episode is encoded twice.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = None if folder is None else folder.resolve()
        self._known: WeakKeyDictionary[View, str] = WeakKeyDictionary()
        self._making: WeakKeyDictionary[View, Lock] = WeakKeyDictionary()
        self._lock = Lock()

    def url(self, view: View) -> str:
        """The address of `view` for the server."""
        with self._lock:
            making = self._making.setdefault(view, Lock())
        with making:  # threads may share a view of one picture
            found = self._known.get(view)
            if found is None:
                found = self._known[view] = (
                    _data_url(view) if self._folder is None else _file_url(view, self._folder)
                )
            return found


def _data_url(view: View) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(view)).decode("ascii")


def _file_url(view: View, folder: Path) -> str:
    name = sha256(repr((view.image.mode, view.size)).encode() + view.image.tobytes()).hexdigest()
    file = folder / f"{name}.png"
    if not file.exists():
        try:
            with atomic_file(file, "wb") as out:
                out.write(png_bytes(view))
        except DiskError as error:
            raise PolicyError(str(error)) from error
    return file.as_uri()


WRITE_ON = {"add_generation_prompt": False, "continue_final_message": True}
"""Options of vLLM and SGLang to continue the last message, which is the model's own."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields of servers with a reasoning parser, by server and version."""
_TEXTS = ("text", "output_text")
"""Types of a message's parts that are text."""
_STOPPED_BY = ("stop_reason", "matched_stop")
"""Fields of vLLM and SGLang with the stop text that ended a reply (null: none)."""


def chat_messages(messages: Sequence[Message], urls: PictureUrls) -> list[dict[str, Any]]:
    """`messages` in the API's form; a message without pictures has its text as plain content.

    Consecutive assistant messages become one. The text of a call stays in its reply, so a tool's
    message names its call by a number only because the API requires a name. Control tokens in
    texts from outside are broken up, as for a policy in this process.
    """
    found: list[dict[str, Any]] = []
    for role, some in groupby(messages, key=lambda message: message.role):
        contents = [_sendable(message) for message in some]
        if role == "assistant":
            contents = [tuple(chain(*contents))]
        found += [{"role": role, "content": _content(parts, urls)} for parts in contents]
        if role == "tool":
            found[-1]["tool_call_id"] = f"call_{len(found)}"
    return found


def _sendable(message: Message) -> tuple[MessagePart, ...]:
    harmless = harmless_text if message.reply is None else harmless_reply
    return tuple(
        harmless(valid_text(part)) if isinstance(part, str) else part for part in message.parts
    )


def _content(parts: Sequence[MessagePart], urls: PictureUrls) -> str | list[dict[str, Any]]:
    """Consecutive texts become one: some servers put line breaks between texts."""
    joined: list[MessagePart] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    if len(joined) == 1 and isinstance(joined[0], str):
        return joined[0]
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": urls.url(part)}}
        for part in joined
    ]


class NoReply(Exception):
    """A response with status 200 and no reply."""


def protocol_reply(body: bytes, protocol: ChatProtocol, *, cut: bool = False) -> Reply:
    """The reply in a chat-completion body, as text of the family.

    What a server took out of the text is put back: calls after it, thinking before it. See
    `read_reply` for the arguments and errors.
    """
    return read_reply(body, protocol.stop, protocol.call_text, thinks=protocol.thinks, cut=cut)


def read_reply(
    body: bytes,
    stop: Sequence[str],
    call_text: Callable[[str, str], str] | None = None,
    *,
    thinks: bool = False,
    cut: bool = False,
) -> Reply:
    """The reply in a chat-completion body.

    Args:
        body: the server's body, of any shape.
        stop: the stop texts; one that the server removed is put back.
        call_text: makes text of separate calls, see `ChatProtocol.call_text`; None: separate calls
            are an error.
        thinks: whether separate thinking goes back into the text, see `ChatProtocol.thinks`.
        cut: whether the server was not told the stop texts, so the reply ends here after the first.
    Raises:
        NoReply: the body has no reply.
        PolicyError: the server removed a tool call, or all text as reasoning, from the text.
    """
    try:
        found = json.loads(body)
        choice = found["choices"][0]
        message = choice["message"]
        text = _text(message.get("content")) or _text(message.get("refusal"))
        finish = choice.get("finish_reason")
        old_form = message.get("function_call")
        calls = message.get("tool_calls") or ([{"function": old_form}] if old_form else [])
        hidden = [name for name in _REASONING if message.get(name)]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise NoReply(f"a 200 without a reply: {body[:200].decode(errors='replace')!r}") from error
    if calls and not call_text:
        raise PolicyError(
            "the server put the tool call elsewhere than into the reply's text; start it "
            "without a tool-call parser"
        )
    if call_text and "<tool_call>" not in text:  # some servers repeat the calls
        text += "".join(call_text(*named) for named in _named(calls))
    if hidden and not text.strip() and finish != TRUNCATED:  # truncated: it was still reasoning
        raise PolicyError(
            f"the server put the reply into {hidden[0]!r} and left its text empty; start it "
            f"without a reasoning parser"
        )
    if thinks and hidden and text.strip() and isinstance(message[hidden[0]], str):
        text = f"<think>{message[hidden[0]]}</think>{text}"
    text = valid_text(text)
    if cut:
        text, finish = _cut(text, stop, finish)
    elif finish != TRUNCATED:
        text = with_stop(text, stop, choice)
    return Reply(
        text, usage=_usage(found.get("usage")), finish=finish if isinstance(finish, str) else ""
    )


def read_prompt_logprobs(body: bytes) -> list[tuple[str, float]]:
    """(token, log-probability) of every token of the prompt but the first, from a body of vLLM.

    Raises:
        PolicyError: the body has none.
    """
    try:
        found = json.loads(body)["prompt_logprobs"]
        places = [next(iter(place.items())) for place in found if place]
        return [(token, float(values["logprob"])) for token, values in places]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise PolicyError(
            f"the server gives no log-probabilities of prompts, which --gain needs; serve the "
            f"model with vLLM (its answer: {body[:200].decode(errors='replace')!r})"
        ) from error


def logprob_after(
    opened: Sequence[tuple[str, float]], whole: Sequence[tuple[str, float]]
) -> TextLogprob:
    """Log-probability of the text that `whole` has after `opened`, both as `read_prompt_logprobs`
    gives them.

    Where the last tokens of `opened` become others as the text goes on, both are counted: log
    p(whole) - log p(opened), from the first token that differs.
    """
    pairs = zip(opened, whole, strict=False)
    same = next((n for n, (a, b) in enumerate(pairs) if a[0] != b[0]), min(len(opened), len(whole)))
    total = sum(value for _, value in whole[same:]) - sum(value for _, value in opened[same:])
    return TextLogprob(total, max(1, len(whole) - len(opened)))


def _text(content: Any) -> str:
    """A message's text: a text, a list of parts with texts, or nothing.

    Raises:
        TypeError, LookupError: something else.
    """
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part["type"] in _TEXTS)
    if not isinstance(content, str):
        raise TypeError("no text")
    return content


def _named(calls: Any) -> list[tuple[str, str]]:
    """(name, arguments as JSON) of the calls that a server took out of the text.

    Raises:
        NoReply: a call without name or arguments.
    """
    try:
        functions = [call["function"] for call in calls]
        return [(str(one["name"]), _arguments(one["arguments"])) for one in functions]
    except (LookupError, TypeError) as error:
        raise NoReply(f"a call without a name or arguments: {json.dumps(calls)[:200]}") from error


def _arguments(given: Any) -> str:
    """Arguments as JSON; some servers give them decoded."""
    return (given.strip() or "{}") if isinstance(given, str) else json.dumps(given or {})


def _cut(text: str, stop: Sequence[str], finish: Any) -> tuple[str, Any]:
    """(`text` up to and with the first stop text, its finish reason)."""
    ends = [at + len(end) for end in stop if (at := text.find(end)) >= 0]
    return (text[: min(ends)], STOPPED) if ends else (text, finish)


def with_stop(text: str, stop: Sequence[str], choice: Mapping[str, Any]) -> str:
    """`text` with the stop text that ended it, if the server removed it.

    Some servers name the stop text. For the others, a closing tag (`</answer>`) is put back if its
    tag is open; of several the last opened.
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
