"""The data of an episode's dialogue: replies, actions, views.

`protocols` turns texts into actions and turns into chat messages; `episode` runs the dialogue.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from lfpc.boxes import Box
from lfpc.images import View


@dataclass(frozen=True, slots=True)
class Crop:
    """A call for a region of the original. Two crops are equal if they show the same region."""

    box: Box
    """The requested box."""
    wider: Box | None = None
    """The region that the family's tool shows, if it pads or enlarges the box; None: the box."""
    emitted: tuple[float, ...] = field(default=(), compare=False)
    """The policy's numbers, in its family's frame; empty: not stored."""
    source: int = field(default=0, compare=False)
    """Number of the picture they refer to: 0 the first view or its original, n the nth shown
    crop."""
    exact: bool = field(default=True, compare=False)
    """Whether the reply is what the family's prompt asks for: one closed call after finished
    thinking or none, with the keys of the prompt, in JSON that needed no repair, corners in order.
    A reward pays for exact calls; not stored. As-released readings, which no training uses, leave
    it as it is here."""

    @property
    def shown(self) -> Box:
        """The region to show."""
        return self.wider or self.box


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, which ends the episode."""

    text: str
    exact: bool = field(default=True, compare=False)
    """Whether it is closed and alone, after finished thinking or none; see `Crop.exact`."""


class Reason(StrEnum):
    """Reason of a malformed reply, the same set for all protocols."""

    NO_ACTION = "no_action"
    """Neither a call nor an answer."""
    EMPTY_ANSWER = "empty_answer"
    """The answer is empty."""
    BAD_JSON = "bad_json"
    """The call is not valid JSON (or XML), and not repairable."""
    UNKNOWN_TOOL = "unknown_tool"
    """The call names an unknown tool."""
    BAD_BOX = "bad_box"
    """The call has no four numbers for a box."""
    EMPTY_BOX = "empty_box"
    """The box is not finite, or has no area inside its picture."""
    BAD_SOURCE = "bad_source"
    """The call names a picture that was not shown."""
    TOO_SMALL = "too_small"
    """A side of the box is below the minimum of the family's tool."""
    TOO_NARROW = "too_narrow"
    """The aspect of the box is above the maximum of the family's tool."""
    BAD_CODE = "bad_code"
    """The code is not Python, or too long."""
    NO_CROP = "no_crop"
    """The code has no cut that is known without running it."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A reply that is neither call nor answer. `reason` is for counts, `detail` is the message to
    the policy.
    """

    reason: Reason
    detail: str


Action = Crop | Answer | Malformed


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a reply, as the backend reports them."""

    prompt_tokens: int
    """Tokens of text and pictures read: the whole conversation in each turn."""
    reply_tokens: int
    """Tokens written."""


STOPPED = "stop"
TRUNCATED = "length"
"""Finish reasons of the chat-completions API: the model ended its reply, or the token limit did."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A policy's reply, with sampled tokens and log-probabilities (both empty for a policy without
    tokens).
    """

    text: str
    token_ids: tuple[int, ...] = ()
    """Sampled tokens, the end-of-turn token included."""
    logprobs: tuple[float, ...] = ()
    """log pi(token) at the sampling temperature, one per token."""
    usage: Usage | None = None
    """Token counts; None: not counted."""
    finish: str = ""
    """The finish reason: "stop", "length", or a server's own; empty: unknown."""

    @property
    def tokens(self) -> int:
        """Number of tokens written, by the backend's count if it counts; 0 for a policy without
        tokens.
        """
        return self.usage.reply_tokens if self.usage else len(self.token_ids)

    @property
    def truncated(self) -> bool:
        """Whether the token limit ended the reply."""
        return self.finish == TRUNCATED


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply, its action, and the view that it earned (None: no picture was shown)."""

    reply: Reply
    action: Action
    view: View | None = None


class _Acted(Protocol):
    @property
    def action(self) -> Action: ...


T = TypeVar("T", bound=_Acted)


def crop_turns(turns: Sequence[T]) -> tuple[T, ...]:
    """The turns with a crop that the policy could see: calls with a reply after them. A call in the
    last turn is neither cut nor counted nor paid.
    """
    return tuple(turn for turn in turns[:-1] if isinstance(turn.action, Crop))


def crop_boxes(turns: Sequence[_Acted]) -> tuple[Box, ...]:
    """The requested boxes of `crop_turns`, in order."""
    return tuple(turn.action.box for turn in crop_turns(turns) if isinstance(turn.action, Crop))


@dataclass(frozen=True, slots=True)
class Context:
    """Everything the policy may see when it replies."""

    question: str
    options: tuple[str, ...]
    first_view: View
    turns: tuple[Turn, ...]
    key: str = ""
    """Identity of the episode, which its random numbers depend on: the sample's id, and the number
    of the draw if the sample is drawn several times."""

    @property
    def views(self) -> tuple[View, ...]:
        """Every picture shown so far, the first view first."""
        return (self.first_view, *(turn.view for turn in self.turns if turn.view is not None))
