"""A named protocol as the text of a protocol file, to begin one's own with."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields

from PIL import Image

from lfpc.boxes import WHOLE
from lfpc.images import View
from lfpc.protocols import protocol_named
from lfpc.protocols.base import ChatProtocol
from lfpc.protocols.deepeyes import ASPECT as DEEPEYES_ASPECT
from lfpc.protocols.deepeyes import SIDES_ABOVE
from lfpc.protocols.files import CROP, MalformedTexts
from lfpc.protocols.mini_o3 import ASPECT, ORIGINAL
from lfpc.protocols.qwen2_5_vl import TOOL
from lfpc.protocols.reply_format import ReplyFormat

_TOOL_CALL = ("<tool_call>", "</tool_call>")
_ANSWER = ("<answer>", "</answer>")
FORMATS: Mapping[str, ReplyFormat] = {
    "qwen2_5_vl": ReplyFormat(
        call=_TOOL_CALL,
        box="arguments.bbox_2d",
        coordinates="shown",
        answer=_ANSWER,
        tool=TOOL,
        repair=False,
    ),
    "deepeyes": ReplyFormat(
        call=_TOOL_CALL,
        box="arguments.bbox_2d",
        coordinates="shown",
        answer=_ANSWER,
        tool=TOOL,
        answer_wins=True,
        min_side=SIDES_ABOVE,
        max_aspect=DEEPEYES_ASPECT,
    ),
    "chain_of_focus": ReplyFormat(
        call=_TOOL_CALL,
        box="arguments.bbox_2d",
        coordinates="shown",
        answer=_ANSWER,
        tool=TOOL,
        widen=1.5,
    ),
    "mini_o3": ReplyFormat(
        call=("<grounding>", "</grounding>"),
        box="bbox_2d",
        coordinates="0-1",
        answer=_ANSWER,
        picture="source",
        original_name=ORIGINAL,
        crop_name="observation_{number}",
        max_aspect=ASPECT,
    ),
}
"""The reply formats of the protocols that a `ReplyFormat` can express."""
MALFORMED: Mapping[str, MalformedTexts] = {
    "qwen2_5_vl": MalformedTexts(
        bad_box="Error: bbox_2d must be four numbers [x1, y1, x2, y2].",
        empty_box="Error: bbox_2d has no area inside the picture, which is {width} x {height} "
        "pixels.",
    ),
}
_SIZES = {311: "{width}", 313: "{height}", 3001: "{original_width}", 3011: "{original_height}"}
_NUMBERS = {7001: "{number}", 7002: "{picture}", 311: "{width}", 313: "{height}"}
"""Numbers that no prompt holds -> the placeholders that they stand for."""


def starting_file(name: str) -> str:
    """A protocol file that says what the protocol `name` says.

    Raises:
        ConfigError: unknown protocol.
    """
    protocol = protocol_named(name)
    return "\n".join(_lines(protocol)) + "\n"


def _lines(protocol: ChatProtocol) -> Iterator[str]:
    name = protocol.name
    view = View(Image.new("1", (311, 313)), WHOLE, (3001, 3011))
    question = protocol.ask("{question}", ("{options}",)).replace("A. {options}", "{options}")
    parts = protocol.observe(view, 7001, "{question}")
    message = "".join(part if isinstance(part, str) else CROP for part in parts)
    yield f"# {name} as a protocol file. What you delete stays as it is in the base."
    yield f"name = {_text(f'my_{name}')}"
    yield f"base = {_text(name)}"
    yield f"system = {_text(protocol.system)}"
    yield f"direct_system = {_text(protocol.direct_system)}"
    yield f"question = {_text(question)}"
    if reminder := protocol.remind(view):
        yield f"reminder = {_text(_with(reminder, _SIZES))}"
    yield f"crop_message = {_text(_with(message, _NUMBERS))}"
    yield f"no_crop_message = {_text(protocol.observe_nothing)}"
    yield f"crop_role = {_text(protocol.observation_role)}"
    yield f"stop = {_value(protocol.stop)}"
    if protocol.turns:
        yield f"max_turns = {protocol.turns}"
    yield f"thinks = {_value(protocol.thinks)}"
    yield f"crop_tokens = {_value((protocol.crop.min_tokens, protocol.crop.max_tokens))}"
    yield from _table("malformed", MALFORMED.get(name, MalformedTexts()), MalformedTexts())
    if name not in FORMATS:
        yield ""
        yield f"# Without a [reply] table the parser of {name} reads calls and answers."
        return
    plain = ReplyFormat(call=("\0", "\0"), box="", coordinates="original", answer=("\1", "\1"))
    yield from _table("reply", FORMATS[name], plain)


def _table(name: str, values: object, defaults: object) -> Iterator[str]:
    """The lines of a table with what differs from the defaults."""
    given = [
        f"{field.name} = {_value(getattr(values, field.name))}"
        for field in fields(values)  # pyright: ignore[reportArgumentType]
        if getattr(values, field.name) != getattr(defaults, field.name)
    ]
    if given:
        yield from ("", f"[{name}]", *given)


def _with(text: str, placeholders: Mapping[int, str]) -> str:
    for number, placeholder in placeholders.items():
        text = text.replace(str(number), placeholder)
    return text


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return _text(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(text: str) -> str:
    """A TOML string; several lines if the text has line breaks."""
    quoted = json.dumps(text, ensure_ascii=False)
    if "\n" not in text:
        return quoted
    lines = text.replace("\\", "\\\\").replace('"""', '""\\"')
    return f'"""\n{lines}"""'
