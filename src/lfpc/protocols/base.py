"""The record every protocol fills in: texts are data, two functions do the work.

`parse` never raises and never evaluates: whatever a model wrote becomes a Crop, an Answer or a
Malformed. It is the only place where a model's coordinates become a Box, which is in fractions of
the original.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from lfpc.boxes import Box
from lfpc.dialogue import Action, Context, Malformed, Turn
from lfpc.errors import ConfigError
from lfpc.images import CropRules, View

MessagePart = str | View
"""A piece of a message: text, or a picture."""
Role = Literal["system", "user", "assistant", "tool"]
Parser = Callable[[str, Sequence[View]], Action]
"""(reply text, pictures shown so far with the first view first) -> action."""
Coords = Literal["mapped", "as-released"]
"""mapped: boxes mean what the model was told. as-released: what the family's published script made
of them."""

LONGEST_REPLY = 100_000
"""Characters of a reply that are looked at."""


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; an assistant's text is exactly what the model wrote.

    Assistant messages that follow each other are one turn, and if the last message is the
    assistant's, it writes on in it.
    """

    role: Role
    parts: tuple[MessagePart, ...]
    reply: int | None = None
    """For a message that the policy wrote, which turn's reply it is: the policy has its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatProtocol:
    """One model family's way of asking for crops and answering."""

    name: str
    system: str
    """System message with the tool's description; empty: none."""
    direct_system: str
    """System message when no tool is offered."""
    parser: Parser
    """What a reply means."""
    ask: Callable[[str, Sequence[str]], str]
    """(question, options) -> text of the first user message, which follows the picture."""
    remind: Callable[[View], str] = lambda first_view: ""
    """First view -> text after the question when the tool is offered."""
    observe: Callable[[View, int, str], tuple[MessagePart, ...]]
    """(crop, its number among the crops shown from 1, the question as asked) -> parts of the
    message that shows it."""
    observe_nothing: str
    """Text of the message when the tool shows no picture."""
    observation_role: Role = "user"
    """Whose message shows a crop; assistant: the crop stands in the policy's own turn, which goes
    on after it."""
    stop: tuple[str, ...] = ()
    """Texts after which generation stops; they stay in the reply."""
    native_tools: tuple[Mapping[str, Any], ...] = ()
    """Tools that the chat template describes (JSON schemas for `tools`); empty: the system message
    does, or there is no need."""
    call_text: Callable[[str, str], str] | None = None
    """(tool's name, arguments as JSON) -> the call as the policy writes it, where a server may hand
    out calls apart from the text; None: its calls are always text."""
    frame: tuple[int, int] | None = None
    """What the corners of a box the model is asked to locate run to; None: pixels of the picture it
    is shown."""
    write_call: Callable[[Box, View], str] | None = None
    """(region, first view) -> a reply that asks for it, as the policy itself would write it; None:
    not known."""
    crop: CropRules = field(default_factory=CropRules)
    """How the family's crops become pictures."""
    turns: int | None = None
    """Replies of a dialogue whose length is fixed; None: as many as the caller allows."""
    as_released: Parser | None = None
    """What the family's published script makes of a reply, where that differs; None: the same."""

    @property
    def factor(self) -> int:
        """Side of one visual token in pixels."""
        return self.crop.factor

    @property
    def coords(self) -> Coords:
        """How it reads boxes; see `with_coords`."""
        return "as-released" if self.parser is self.as_released else "mapped"

    @property
    def plain_chat(self) -> bool:
        """Whether turns alternate and no tool is left to the chat template: all that a policy in
        this process can play.
        """
        return not self.native_tools and self.observation_role != "assistant"

    def with_coords(self, coords: Coords) -> Self:
        """This protocol, reading boxes as `coords` says.

        Raises:
            ConfigError: as-released, but the published script reads boxes as the model was told.
        """
        if coords == "mapped":
            return self
        if self.as_released is None:
            raise ConfigError(
                f"{self.name} has no coords='as-released': its published script does what "
                f"it tells the model; use 'mapped'"
            )
        return replace(self, parser=self.as_released)

    def parse(self, text: str, views: Sequence[View]) -> Action:
        """What `text` means, for a policy that has been shown `views`, the first view first."""
        return self.parser(text[:LONGEST_REPLY], views)

    def observation(self, turn: Turn, number: int, asked: str) -> tuple[MessagePart, ...]:
        """What the policy is told after `turn`, whose crop is the `number`th that was shown."""
        if isinstance(turn.action, Malformed):
            return (turn.action.detail,)
        return (
            (self.observe_nothing,) if turn.view is None else self.observe(turn.view, number, asked)
        )

    def messages(self, context: Context, *, tools: bool = True) -> list[Message]:
        """The whole conversation so far, the policy to write next. Without `tools` the policy is
        asked to answer at once.
        """
        system = self.system if tools else self.direct_system
        asked = self.ask(context.question, context.options)
        first: tuple[MessagePart, ...] = (
            context.first_view,
            asked + (self.remind(context.first_view) if tools else ""),
        )
        messages = [Message("system", (system,))] if system else []
        messages.append(Message("user", first))
        crops = 0
        for number, turn in enumerate(context.turns):
            crops += turn.view is not None
            messages.append(Message("assistant", (turn.reply.text,), reply=number))
            messages.append(Message(self.observation_role, self.observation(turn, crops, asked)))
        return messages
