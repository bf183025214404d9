"""The data type of a protocol: texts, a parser, and functions that write messages.

`parse` neither raises nor evaluates code: any reply becomes a Crop, an Answer or a Malformed. It is
the only place where a model's coordinates become a Box, which is in fractions of the original.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from lfpc.boxes import Box
from lfpc.dialogue import Action, Context, Malformed, Turn
from lfpc.errors import ConfigError
from lfpc.images import CropRules, View
from lfpc.protocols.exact import exact_if

if TYPE_CHECKING:
    from lfpc.protocols.files import ProtocolFile

MessagePart = str | View
"""A piece of a message: text, or a picture."""
Role = Literal["system", "user", "assistant", "tool"]
Parser = Callable[[str, Sequence[View]], Action]
"""(reply text, pictures shown so far with the first view first) -> action."""
Coords = Literal["mapped", "as-released"]
"""Reading of replies. mapped: as the prompt defines calls and boxes; as-released: as the family's
published script treats them."""

LONGEST_REPLY = 100_000
"""Maximum parsed characters of a reply."""


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; an assistant's text is the model's reply, unchanged.

    Consecutive assistant messages are one turn; a last assistant message is continued by the model.
    """

    role: Role
    parts: tuple[MessagePart, ...]
    reply: int | None = None
    """Number of the turn whose reply this message is, as the policy has its tokens; None: not a
    reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What the family's published script does differently from the mapped reading."""

    parser: Parser
    """Parser that does with a reply what the script does."""
    stop: tuple[str, ...] | None = None
    """Stop texts; None: the protocol's."""
    crop: CropRules | None = None
    """Resolution of crops; None: the protocol's."""
    ask_first: Callable[[str, Sequence[str]], str] | None = None
    """See `ChatProtocol.ask_first`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatProtocol:
    """One model family's prompts, calls and answers."""

    name: str
    system: str
    """System message with the tool's description; empty: none."""
    direct_system: str
    """System message without a tool."""
    parser: Parser
    """Parser of replies."""
    ask: Callable[[str, Sequence[str]], str]
    """(question, options) -> text of the first user message, which follows the picture."""
    ask_first: Callable[[str, Sequence[str]], str] | None = None
    """The same for the first user message if the tool is offered, where that differs from the
    question that `observe` gets; None: `ask`."""
    remind: Callable[[View], str] = lambda first_view: ""
    """First view -> text after the question if the tool is offered."""
    observe: Callable[[View, int, str], tuple[MessagePart, ...]]
    """(crop, its number among the crops shown from 1, the question as asked) -> parts of the
    message that shows it."""
    observe_nothing: str
    """Text of the message if the tool shows no picture."""
    observation_role: Role = "user"
    """Role of the message with a crop. assistant: the crop is inside the policy's own turn, which
    continues after it."""
    stop: tuple[str, ...] = ()
    """Stop texts, which stay in the reply."""
    native_tools: tuple[Mapping[str, Any], ...] = ()
    """JSON schemas of tools for the chat template; empty: the system message describes the tool, if
    there is one."""
    call_text: Callable[[str, str], str] | None = None
    """(tool's name, arguments as JSON) -> text of the call, for servers that take calls out of
    replies; None: the family's calls have another form, which no server takes out."""
    thinks: bool = False
    """Whether a reply begins with thinking between <think> tags, which servers with a reasoning
    parser take out."""
    answer_mark: str = "<answer>"
    """Text that opens an answer, after which `lfpc probe --gain` reads the answer's probability."""
    frame: tuple[int, int] | None = None
    """Coordinate range of boxes that the model is asked to locate; None: pixels of the shown
    picture."""
    write_call: Callable[[Box, View], str] | None = None
    """(region, first view) -> a reply with a call for it; None: unsupported."""
    crop: CropRules = field(default_factory=CropRules)
    """Resolution of the family's crops."""
    turns: int | None = None
    """Fixed number of replies; None: up to the caller's limit."""
    as_released: Released | None = None
    """The reading of the family's published script, if it differs; None: the mapped one."""
    file: "ProtocolFile | None" = None
    """Content of the protocol file that it was made from; None: a named protocol."""

    @property
    def given(self) -> "str | ProtocolFile":
        """What a configuration records of it: the name, or the file's content."""
        return self.file or self.name

    @property
    def factor(self) -> int:
        """Side of one visual token in pixels."""
        return self.crop.factor

    @property
    def coords(self) -> Coords:
        """How it reads boxes; see `with_coords`."""
        released = self.as_released is not None and self.parser is self.as_released.parser
        return "as-released" if released else "mapped"

    @property
    def whole_turns(self) -> bool:
        """Whether a reply ends the model's turn, as a policy in this process requires."""
        return self.observation_role != "assistant"

    def with_coords(self, coords: Coords) -> Self:
        """This protocol with the reading `coords` of boxes.

        Raises:
            ConfigError: as-released for a family whose script reads boxes as the prompt defines
                them.
        """
        if coords == "mapped":
            return self
        if self.as_released is None and self.file is not None:
            raise ConfigError(
                f"{self.name} has no `coords` as-released: a protocol file with a [reply] table "
                f"has one reading; use 'mapped'"
            )
        if self.as_released is None:
            raise ConfigError(
                f"{self.name} has no `coords` as-released: its published script does what "
                f"it tells the model; use 'mapped'"
            )
        released = self.as_released
        return replace(
            self,
            parser=released.parser,
            stop=self.stop if released.stop is None else released.stop,
            crop=released.crop or self.crop,
            ask_first=released.ask_first or self.ask_first,
        )

    def parse(self, text: str, views: Sequence[View]) -> Action:
        """The action of the reply `text`, after the policy has seen `views`, first view first."""
        return exact_if(len(text) <= LONGEST_REPLY, self.parser(text[:LONGEST_REPLY], views))

    def observation(self, turn: Turn, number: int, asked: str) -> tuple[MessagePart, ...]:
        """The message after `turn`, whose crop is the `number`th shown."""
        if isinstance(turn.action, Malformed):
            return (turn.action.detail,)
        return (
            (self.observe_nothing,) if turn.view is None else self.observe(turn.view, number, asked)
        )

    def messages(self, context: Context, *, tools: bool = True) -> list[Message]:
        """The whole conversation before the policy's next reply. Without `tools` the policy is
        asked to answer at once.
        """
        system = self.system if tools else self.direct_system
        asked = self.ask(context.question, context.options)
        opening = asked
        if tools:
            ask_first = self.ask_first or self.ask
            opening = ask_first(context.question, context.options) + self.remind(context.first_view)
        first: tuple[MessagePart, ...] = (context.first_view, opening)
        messages = [Message("system", (system,))] if system else []
        messages.append(Message("user", first))
        crops = 0
        for number, turn in enumerate(context.turns):
            crops += turn.view is not None
            messages.append(Message("assistant", (turn.reply.text,), reply=number))
            messages.append(Message(self.observation_role, self.observation(turn, crops, asked)))
        return messages
