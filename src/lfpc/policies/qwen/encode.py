"""Conversations as tokens, with the policy's earlier replies exactly as sampled.

Texts go through the tokenizer's chat template; a picture is one placeholder per visual token. The
template gets a mark in place of each reply, which is replaced by the sampled tokens, so nothing is
tokenised twice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from lfpc.dialogue import Context, Reply
from lfpc.errors import CheckpointError, ConfigError, SampleError, first_line
from lfpc.images import View, visual_tokens
from lfpc.policies.texts import harmless_text, valid_text
from lfpc.protocols import ChatProtocol, Message

IMAGE_PAD = "<|image_pad|>"
END_OF_TURN = "<|im_end|>"

Positions = Callable[[np.ndarray, Sequence[tuple[int, int]]], np.ndarray]
"""Positions of an architecture, by the arguments of `rope_positions`."""
Span = tuple[int, int]
"""Half-open range of token positions."""
_Outline = tuple[tuple[str, tuple[str | None, ...], bool], ...]
"""Per message its role, its texts (None: a picture) and whether it is a reply of the policy: the
key of a rendering."""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A conversation as the model reads it.

    system + user     reply 0   user       reply 1
    p p V V V p p p   r r r     o V V o    r r       ids; V: placeholders of `views`, in order
    prefix = 7                                       the first prompt without its last token
    """

    ids: np.ndarray
    """(length,) int64 token ids."""
    views: tuple[View, ...]
    """The pictures behind the placeholders, in order."""
    replies: tuple[Span, ...]
    """Spans of the policy's replies, one per turn."""
    prefix: int
    """Length of the prefix that all rollouts of a question share: the first prompt without its last
    token. It contains the first view and no other."""
    positions: np.ndarray
    """(3, length) int64: time, height and width position of every token for the rotary
    embedding."""


class Encoder:
    """Turns contexts into tokens for one tokenizer and protocol.

    Args:
        tokenizer: tokenizer of a Qwen-VL checkpoint, with a chat template.
        protocol: the model family's protocol.
        tools: whether to offer the tool; without it the policy must answer at once.
        positions: positions of the model's architecture.
    Raises:
        CheckpointError: the tokenizer has no chat template or no picture placeholder.
        ConfigError: the protocol is unsupported in this process.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        protocol: ChatProtocol,
        *,
        tools: bool = True,
        positions: Positions | None = None,
    ) -> None:
        if not protocol.whole_turns:
            raise ConfigError(
                f"{protocol.name} shows crops inside the model's own turn; play it through a server"
            )
        if not tokenizer.chat_template:
            raise CheckpointError(
                "the tokenizer has no chat template; take it from the same folder as the weights"
            )
        self.tokenizer = tokenizer
        self.protocol = protocol
        self.tools = tools
        self.positions = positions or rope_positions
        self.image_pad = _special(tokenizer, IMAGE_PAD)
        self.end_of_turn = _special(tokenizer, END_OF_TURN)
        self.merge = protocol.factor
        self._text_ids = lru_cache(maxsize=4096)(self._tokenise)
        self._outline_ids = lru_cache(maxsize=4096)(self._render)

    def context(self, context: Context) -> Encoded:
        """The conversation up to the policy's next reply."""
        return self._encode(context, None)

    def episode(self, context: Context, last: Reply) -> Encoded:
        """A whole conversation: the context of the last turn, and its reply."""
        return self._encode(context, last)

    def _encode(self, context: Context, last: Reply | None) -> Encoded:
        messages = self.protocol.messages(context, tools=self.tools)
        segments = self._outline_ids(_outline(messages))
        replies = [context.turns[m.reply].reply for m in messages if m.reply is not None]
        views = tuple(
            part for message in messages for part in message.parts if isinstance(part, View)
        )
        pieces: list[np.ndarray] = []
        spans: list[Span] = []
        length = 0
        upcoming = iter(views)
        previous = None
        for number, segment in enumerate(segments):
            segment = self._after(segment, previous)
            piece = self._with_pictures(segment, upcoming)
            pieces.append(piece)
            length += len(piece)
            previous = replies[number] if number < len(replies) else last
            if previous is not None and number < len(replies) + (last is not None):
                reply = self.reply_ids(previous)
                spans.append((length, length + len(reply)))
                pieces.append(reply)
                length += len(reply)
        ids = np.concatenate(pieces)
        positions = self.positions(
            ids == self.image_pad, [_grid(view, self.merge) for view in views]
        )
        return Encoded(ids, views, tuple(spans), len(pieces[0]) - 1, positions)

    def reply_ids(self, reply: Reply) -> np.ndarray:
        """The tokens of a reply, as sampled, or tokenised for a policy without tokens."""
        return np.asarray(
            reply.token_ids or self._text_ids(harmless_text(reply.text)), dtype=np.int64
        )

    def first_view(self, row: Encoded) -> np.ndarray:
        """(rows, columns) places of the first view's visual tokens in `row`."""
        rows, columns = _grid(row.views[0], self.merge)
        return np.flatnonzero(row.ids == self.image_pad)[: rows * columns].reshape(rows, columns)

    def text_ids(self, text: str) -> tuple[int, ...]:
        """The tokens of a text without a template."""
        return self._text_ids(harmless_text(text))

    def _after(self, segment: np.ndarray, reply: Reply | None) -> np.ndarray:
        """The segment after a reply, without the template's closing token if the reply has its
        own.
        """
        closed = reply is not None and reply.token_ids and reply.token_ids[-1] == self.end_of_turn
        return (
            segment[1:] if closed and len(segment) and segment[0] == self.end_of_turn else segment
        )

    def _with_pictures(self, segment: np.ndarray, views: Iterator[View]) -> np.ndarray:
        pads = segment == self.image_pad
        if not pads.any():
            return segment
        counts = np.ones(len(segment), dtype=np.int64)
        counts[pads] = [visual_tokens(next(views).size, self.merge) for _ in range(int(pads.sum()))]
        return segment.repeat(counts)

    def _render(self, outline: _Outline) -> tuple[np.ndarray, ...]:
        """Token ids of the segments before, between and after the policy's replies, with one
        placeholder per picture.
        """
        chat = [
            {"role": role, "content": _content(parts, is_reply)}
            for role, parts, is_reply in outline
        ]
        text = self._templated(chat)
        pictures = sum(part is None for _, parts, _ in outline for part in parts)
        if text.count(IMAGE_PAD) != pictures:
            raise CheckpointError(
                f"the chat template wrote {text.count(IMAGE_PAD)} pictures where the "
                f"conversation has {pictures}"
            )
        segments = text.split(_MARK)
        if len(segments) != 1 + sum(is_reply for _, _, is_reply in outline):
            raise CheckpointError(
                "the chat template changes or drops earlier replies; training needs one "
                "that keeps them"
            )
        return tuple(np.asarray(self._text_ids(segment), dtype=np.int64) for segment in segments)

    def _templated(self, chat: list[dict[str, Any]]) -> str:
        native: list[Any] = [dict(tool) for tool in self.protocol.native_tools if self.tools]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    chat, tools=native or None, tokenize=False, add_generation_prompt=True
                )
            )
        except (TypeError, TemplateError) as error:
            raise CheckpointError(
                f"the chat template fails on a conversation with pictures ({first_line(error)}); "
                f"take chat_template.json or chat_template.jinja from the published folder"
            ) from error

    def _tokenise(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(valid_text(text), add_special_tokens=False)["input_ids"])


_MARK = "\0reply\0"
"""Mark in the rendered text for a reply's tokens; NUL is removed from all other texts."""


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """The id of a token; None: the tokenizer has none of this text."""
    found = tokenizer.convert_tokens_to_ids(token)  # that of an unknown text, if there is one
    if isinstance(found, int) and tokenizer.convert_ids_to_tokens(found) == token:
        return found
    return None


def _special(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    found = token_id(tokenizer, token)
    if found is None:
        raise CheckpointError(
            f"the tokenizer does not know {token}; it is not the tokenizer of a Qwen-VL checkpoint"
        )
    return found


def _outline(messages: Sequence[Message]) -> _Outline:
    return tuple(
        (
            m.role,
            tuple(
                None if isinstance(part, View) else part
                for part in (m.parts if m.reply is None else ())
            ),
            m.reply is not None,
        )
        for m in messages
    )


def _content(parts: tuple[str | None, ...], is_reply: bool) -> str | list[dict[str, str]]:
    if is_reply:
        return _MARK
    if len(parts) == 1 and parts[0] is not None:
        return harmless_text(parts[0])
    return [
        {"type": "image"} if part is None else {"type": "text", "text": harmless_text(part)}
        for part in parts
    ]


def _grid(view: View, factor: int) -> tuple[int, int]:
    """(rows, columns) of visual tokens."""
    width, height = view.size
    if width % factor or height % factor:
        raise SampleError(
            f"a view of {width} x {height} pixels is not made of tokens of {factor}; make "
            f"views with lfpc.images"
        )
    return height // factor, width // factor


def rope_positions(is_picture: np.ndarray, grids: Sequence[tuple[int, int]]) -> np.ndarray:
    """Positions for the rotary embedding of Qwen2.5-VL and Qwen3-VL (M-RoPE).

        text:     (p, p, p), p + 1, ...
        picture:  (p, p + row, p + column) over its grid;
                  the text after it starts at p + max(rows, columns)

    Args:
        is_picture: (length,) bool, the picture placeholders.
        grids: (rows, columns) in visual tokens of the pictures, in order.
    Returns:
        (3, length) int64: time, height, width.
    Raises:
        SampleError: the number of placeholders differs from that of the pictures.
    Source: Qwen2-VL; equal to `get_rope_index` of transformers.
    """
    if int(is_picture.sum()) != sum(rows * columns for rows, columns in grids):
        raise SampleError(
            f"{int(is_picture.sum())} placeholders for pictures of {grids} visual tokens"
        )
    positions = np.zeros((3, len(is_picture)), dtype=np.int64)
    starts = np.flatnonzero(is_picture)
    done = 0
    place = 0
    used = 0
    for rows, columns in grids:
        start = int(starts[used])
        positions[:, done:start] = np.arange(place, place + start - done)
        place += start - done
        count = rows * columns
        positions[:, start : start + count] = place
        positions[1, start : start + count] += np.arange(rows).repeat(columns)
        positions[2, start : start + count] += np.tile(np.arange(columns), rows)
        done = start + count
        place = place + max(rows, columns)
        used = used + count
    positions[:, done:] = np.arange(place, place + len(is_picture) - done)
    return positions
