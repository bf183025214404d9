"""Protocols as TOML files: a fine-tune's own prompts and reply format, on top of a named protocol.

A file is data: its texts are filled in by replacement, and nothing in it is executed. A run keeps
the content of the file in its configuration, so it needs the file only once.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, time
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, cast

from lfpc.dialogue import Action, Malformed
from lfpc.errors import ConfigError
from lfpc.images import View
from lfpc.protocols.base import ChatProtocol, MessagePart, Parser
from lfpc.protocols.reading import inline_call_text
from lfpc.protocols.reply_format import ReplyFormat
from lfpc.storage.typed import config_from_plain

CROP = "{crop}"
PLACEHOLDERS: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "options"),
    "reminder": ("width", "height", "original_width", "original_height"),
    "crop_message": ("crop", "number", "picture", "question", "width", "height"),
    "malformed": ("error", "pictures", "width", "height"),
}
"""Placeholders of each text. Other braces stay as they are."""
LARGEST = 2**20
"""Bytes that a protocol file may have."""
_PLACEHOLDER = re.compile(r"\{([a-z_]{1,32})\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformedTexts:
    """Messages after a reply that is neither a call nor an answer, by its reason."""

    any: str = ""
    """For every reason without a text of its own; empty: the base's sentence, {error}."""
    no_action: str = ""
    empty_answer: str = ""
    bad_json: str = ""
    unknown_tool: str = ""
    bad_box: str = ""
    empty_box: str = ""
    bad_source: str = ""
    too_small: str = ""
    too_narrow: str = ""
    bad_code: str = ""
    no_crop: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolFile:
    """The content of a protocol file. A text, list or number that is not given is the base's."""

    name: str
    """Name in reports."""
    base: str
    """Name of the protocol that it changes."""
    system: str | None = None
    """System message if the tool is offered."""
    direct_system: str | None = None
    """System message if no tool is offered."""
    question: str | None = None
    """First user message after the picture, with {question} and {options} (the lettered lines)."""
    reminder: str | None = None
    """Text after the question if the tool is offered, with {width}, {height} of the first view and
    {original_width}, {original_height}."""
    crop_message: str | None = None
    """Message with a crop, at {crop}; also {number} among the crops from 1, {picture} among all
    pictures from 1, {question}, and the crop's {width} and {height}."""
    no_crop_message: str | None = None
    """Message if the tool shows no picture."""
    crop_role: Literal["user", "tool", "assistant"] | None = None
    """Role of the message with a crop; assistant: inside the model's own turn."""
    stop: tuple[str, ...] | None = None
    """Stop texts. With a reply format and no list: the closing tags."""
    max_turns: int | None = None
    """Maximum number of replies, which --max-turns can lower."""
    thinks: bool | None = None
    """Whether a reply begins with thinking between <think> tags."""
    crop_tokens: tuple[int, int] | None = None
    """Minimum and maximum visual tokens of a crop."""
    malformed: MalformedTexts = MalformedTexts()
    """Messages after a malformed reply."""
    reply: ReplyFormat | None = None
    """Format of calls and answers; None: the base's parser."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ConfigError("'name' is empty")
        if not self.name.isprintable():
            raise ConfigError(f"'name' must be one line of text, got {self.name!r}")
        if self.max_turns is not None and self.max_turns < 1:
            raise ConfigError(f"'max_turns' must be at least 1, got {self.max_turns}")
        if self.stop is not None and not all(self.stop):
            raise ConfigError("'stop' has an empty text, which would end every reply at once")
        if self.crop_tokens is not None and not 1 <= self.crop_tokens[0] <= self.crop_tokens[1]:
            raise ConfigError(
                f"'crop_tokens' must be two ascending numbers from 1, got {list(self.crop_tokens)}"
            )
        for key in ("question", "reminder", "crop_message"):
            _check_placeholders(key, getattr(self, key) or "", PLACEHOLDERS[key])
        for field in fields(self.malformed):
            text = getattr(self.malformed, field.name)
            _check_placeholders(f"malformed.{field.name}", text, PLACEHOLDERS["malformed"])
        for placeholder in ("{question}", "{options}"):
            if self.question is not None and placeholder not in self.question:
                raise ConfigError(f"'question' must contain {placeholder}")
        if self.crop_message is not None and self.crop_message.count(CROP) != 1:
            raise ConfigError("'crop_message' must contain {crop} once")
        if self.reply is not None and None in (self.system, self.direct_system):
            raise ConfigError(
                "with a [reply] table 'system' and 'direct_system' must be given too, as the "
                "base's describe another format"
            )

    def __str__(self) -> str:
        return self.name


def read_toml(path: Path) -> ProtocolFile:
    """The content of a protocol file.

    Raises:
        ConfigError: unreadable, not TOML, or a key is unknown, missing or wrong.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ConfigError(f"{path}: larger than {LARGEST >> 20} MiB, so no protocol file")
        found = tomllib.loads(content.decode("utf-8"))
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, or no TOML
        raise ConfigError(f"{path}: not a TOML file ({error})") from error
    try:
        _check_values(found, str(path))
        return config_from_plain(ProtocolFile, found, str(path))
    except RecursionError as error:
        raise ConfigError(f"{path}: its tables nest too deep") from error


def _check_values(found: object, where: str) -> None:
    """Raise ConfigError for a date, as TOML reads 2026-11-26 without quotes, and for a backspace or
    form feed, as it reads one in `boxed` or `frac` after a single backslash.
    """
    match found:
        case str() if control := re.search("[\b\f]", found):
            letter = {"\b": "b", "\f": "f"}[control[0]]
            raise ConfigError(
                f"{where}: TOML reads \\{letter} as a control character; write \\\\{letter}, or "
                f"the text in single quotes"
            )
        case date() | time():
            raise ConfigError(f"{where}: {found} is a date or time in TOML; put it in quotes")
        case dict():
            for key, value in cast("dict[str, object]", found).items():
                _check_values(value, f"{where}: '{key}'")
        case list():
            for value in cast("list[object]", found):
                _check_values(value, where)
        case _:
            pass


def protocol_from_plain(found: object) -> str | ProtocolFile:
    """The protocol of a configuration in JSON: a name, or the content of a file.

    Raises:
        ConfigError: neither.
    """
    if isinstance(found, str):
        return found
    return config_from_plain(ProtocolFile, found, "`protocol`")


def build(file: ProtocolFile, base: ChatProtocol) -> ChatProtocol:
    """The protocol of a file."""
    built = replace(
        base,
        name=file.name,
        file=file,
        parser=_worded(file.reply.parser if file.reply else base.parser, file.malformed),
        as_released=None
        if file.reply or base.as_released is None
        else replace(base.as_released, parser=_worded(base.as_released.parser, file.malformed)),
    )
    given = {
        "system": file.system,
        "direct_system": file.direct_system,
        "observe_nothing": file.no_crop_message,
        "observation_role": file.crop_role,
        "turns": file.max_turns,
        "thinks": file.thinks,
    }
    built = replace(built, **{key: value for key, value in given.items() if value is not None})
    if file.question is not None:
        built = replace(built, ask=_ask(file.question), ask_first=None)
    if file.reminder is not None:
        built = replace(built, remind=_remind(file.reminder))
    if file.crop_message is not None:
        built = replace(built, observe=_observe(file.crop_message))
    if file.crop_tokens is not None:
        least, most = file.crop_tokens
        built = replace(built, crop=replace(base.crop, min_tokens=least, max_tokens=most))
    if file.reply is not None:
        built = replace(
            built,
            stop=file.reply.closing_tags,
            native_tools=(),
            write_call=file.reply.write_call,
            call_text=inline_call_text if file.reply.is_tool_call else None,
            answer_mark=file.reply.answer[0],
        )
    return built if file.stop is None else replace(built, stop=file.stop)


def _check_placeholders(key: str, text: str, allowed: Sequence[str]) -> None:
    for found in _PLACEHOLDER.findall(text):
        near = () if found in allowed else get_close_matches(found, allowed, n=1, cutoff=0.7)
        if near:
            raise ConfigError(
                f"'{key}' has the unknown placeholder {{{found}}}; did you mean {{{near[0]}}}?"
            )


def _filled(text: str, values: Mapping[str, object]) -> str:
    """`text` with its placeholders replaced once, so that a value's own braces stay."""
    return _PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), text)


def _ask(template: str) -> Callable[[str, Sequence[str]], str]:
    def ask(question: str, options: Sequence[str]) -> str:
        lines = "\n".join(f"{chr(65 + i)}. {text}" for i, text in enumerate(options))
        text = template if options else template.replace("\n{options}", "")
        return _filled(text, {"question": question, "options": lines})

    return ask


def _remind(template: str) -> Callable[[View], str]:
    def remind(first_view: View) -> str:
        return _filled(template, {**_size(first_view), **_original_size(first_view)})

    return remind


def _observe(template: str) -> Callable[[View, int, str], tuple[MessagePart, ...]]:
    before, _, after = template.partition(CROP)

    def observe(view: View, number: int, asked: str) -> tuple[MessagePart, ...]:
        values = {"number": number, "picture": number + 1, "question": asked, **_size(view)}
        parts = (_filled(before, values), view, _filled(after, values))
        return tuple(part for part in parts if part != "")

    return observe


def _worded(parser: Parser, texts: MalformedTexts) -> Parser:
    """`parser` with the file's messages after malformed replies."""
    if texts == MalformedTexts():
        return parser

    def parse(text: str, views: Sequence[View]) -> Action:
        action = parser(text, views)
        if not isinstance(action, Malformed):
            return action
        template = getattr(texts, action.reason.value) or texts.any or "{error}"
        values = {"error": action.detail, "pictures": len(views), **_size(views[0])}
        return Malformed(action.reason, _filled(template, values))

    return parse


def _size(view: View) -> dict[str, object]:
    return {"width": view.size[0], "height": view.size[1]}


def _original_size(view: View) -> dict[str, object]:
    width, height = view.original_size
    return {"original_width": width, "original_height": height}
