"""The record every protocol fills in: texts are data, two functions do the work.

`parse` never raises and never evaluates: whatever a model wrote becomes a Crop, an Answer or a Malformed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lfpc.boxes import Size
from lfpc.dialogue import Action, Context, Malformed, Turn
from lfpc.images import View

Part = str | View
"""A piece of a message: text, or a picture."""
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; an assistant's text is exactly what the model wrote."""

    role: Role
    parts: tuple[Part, ...]
    reply: int | None = None
    """For an assistant message, which turn's reply it is: the policy has its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatProtocol:
    """One model family's way of asking for crops and answering."""

    name: str
    system: str
    """System message with the tool's description; empty: none."""
    direct_system: str
    """System message when no tool is offered."""
    parser: Callable[[str, Size], Action]
    """(reply text, size of the first view in pixels) -> action."""
    ask: Callable[[str, Sequence[str]], str]
    """(question, options) -> text of the first user message, which follows the picture."""
    observe: Callable[[View], tuple[Part, ...]]
    """Parts of the message that shows a crop."""
    observe_nothing: str
    """Text of the message when the tool shows no picture."""
    observation_role: Role = "user"
    stop: tuple[str, ...] = ()
    """Texts after which generation stops; they stay in the reply."""
    factor: int = 28
    """Side of one visual token in pixels."""

    def parse(self, text: str, shown: Size) -> Action:
        """What `text` means, for a policy whose first view has `shown` pixels."""
        return self.parser(text, shown)

    def observation(self, turn: Turn) -> tuple[Part, ...]:
        """What the policy is told after `turn`."""
        if isinstance(turn.action, Malformed):
            return (turn.action.detail,)
        return (self.observe_nothing,) if turn.view is None else self.observe(turn.view)

    def messages(self, context: Context, *, tools: bool = True) -> list[Message]:
        """The whole conversation so far, the policy to write next. Without `tools` the policy is asked to answer at once."""
        system = self.system if tools else self.direct_system
        first: tuple[Part, ...] = (context.first_view, self.ask(context.question, context.options))
        messages = [Message("system", (system,))] if system else []
        messages.append(Message("user", first))
        for number, turn in enumerate(context.turns):
            messages.append(Message("assistant", (turn.reply.text,), reply=number))
            messages.append(Message(self.observation_role, self.observation(turn)))
        return messages
