"""What is said in an episode: the policy's replies, what they meant, and what it was shown for
them.

Holds data only. `protocols` turns texts into actions and turns into chat messages; `episode` runs
the game.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from lfpc.boxes import Box
from lfpc.images import View


@dataclass(frozen=True, slots=True)
class Crop:
    """The policy asks to see a region of the original. Two crops are equal if they show the
    same.
    """

    box: Box
    """Where it pointed."""
    wider: Box | None = None
    """What its family's tool shows for that, where the tool pads or enlarges; None: just that."""
    emitted: tuple[float, ...] = field(default=(), compare=False)
    """The numbers as it wrote them, in its family's frame; empty: not kept."""
    source: int = field(default=0, compare=False)
    """Which picture they refer to: 0 the first view or its original, n the nth crop it was
    shown."""

    @property
    def shown(self) -> Box:
        """The region to show."""
        return self.wider or self.box


@dataclass(frozen=True, slots=True)
class Answer:
    """The policy answers; the episode ends."""

    text: str


class Reason(StrEnum):
    """Why a reply is neither call nor answer. No protocol gives any other reason."""

    NO_ACTION = "no_action"
    """There is neither a call nor an answer."""
    EMPTY_ANSWER = "empty_answer"
    """The answer holds nothing."""
    BAD_JSON = "bad_json"
    """The call is not valid JSON (or XML), and not repairable."""
    UNKNOWN_TOOL = "unknown_tool"
    """The call names a tool that was not offered."""
    BAD_BOX = "bad_box"
    """The call has no four numbers for a box."""
    EMPTY_BOX = "empty_box"
    """The box has no area inside its picture, or is not finite."""
    BAD_SOURCE = "bad_source"
    """The call names a picture that was not shown."""
    TOO_SMALL = "too_small"
    """A side of the box is below what the family's tool takes."""
    TOO_NARROW = "too_narrow"
    """The box is longer and thinner than the family's tool takes."""
    BAD_CODE = "bad_code"
    """The code is not Python, or too long to be read."""
    NO_CROP = "no_crop"
    """The code cuts no region that can be told without running it."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """The reply is neither call nor answer. `reason` is counted, `detail` is what the policy is
    told.
    """

    reason: Reason
    detail: str


Action = Crop | Answer | Malformed


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply took, as whoever made it counted."""

    prompt_tokens: int
    """Text and pictures that were read, the whole conversation each turn."""
    reply_tokens: int
    """Tokens that were written."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the policy wrote, and how likely it was token by token (both empty for a policy without
    tokens).
    """

    text: str
    token_ids: tuple[int, ...] = ()
    """Sampled tokens, the end-of-turn token included."""
    logprobs: tuple[float, ...] = ()
    """log pi(token) at the sampling temperature, one per token."""
    usage: Usage | None = None
    """Tokens read and written; None: nobody counted."""
    finish: str = ""
    """Why a server's model stopped: "stop", "length", ...; empty: not said."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply, what it meant, and the view it earned (None: no picture was shown)."""

    reply: Reply
    action: Action
    view: View | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """Everything the policy may see when it replies."""

    question: str
    options: tuple[str, ...]
    first_view: View
    turns: tuple[Turn, ...]

    @property
    def views(self) -> tuple[View, ...]:
        """Every picture shown so far, the first view first."""
        return (self.first_view, *(turn.view for turn in self.turns if turn.view is not None))
