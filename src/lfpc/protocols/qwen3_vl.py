"""Qwen3-VL and 3.5: boxes in 0..1000 of the original, calls as JSON or XML, the answer in free
text.

Three protocols, one parser: `qwen3_vl` leaves the tool's description to the chat template and
returns crops in a tool message; `qwen3_vl_user` returns them in a user message, for servers that
accept pictures only there; `qwen3_vl_text` also describes the tool in the system message, for
servers and templates without tools. `as_released` does what the zoom tool of Qwen-Agent does, the
published code for these calls.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lfpc.boxes import Box
from lfpc.dialogue import Action, Malformed, Reason
from lfpc.images import CropRules, View
from lfpc.protocols.base import ChatProtocol, MessagePart, Released
from lfpc.protocols.exact import (
    exact_if,
    hermes_form,
    in_order,
    is_alone,
    is_closed,
    is_exact,
    only_thought,
    text_or_absent,
)
from lfpc.protocols.qwen_agent import LEAST_SIDE, RELEASED_CROP, TOOL, parse_as_released
from lfpc.protocols.reading import (
    ANSWER,
    TOOL_CALL,
    ask,
    call_text,
    crop_of,
    four_numbers,
    from_text,
    malformed,
    observe_tagged,
    read_json,
    said,
    tool_arguments,
    whole_number,
)

FRAME = (1000, 1000)
"""Coordinate range, across and down."""

_CALL = re.compile(
    r"<tool_call>(.*?)(?:</tool_call>|\Z)|(<function=.*?(?:</function>|\Z))", re.DOTALL
)
_FUNCTION = re.compile(r"\s*<function=([^>\s]{1,64})>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]{1,64})>(.*?)(?:</parameter>|\Z)", re.DOTALL)
_FENCED = re.compile(r"\s*(?:```(?:json)?\s*)?(\{.*)", re.DOTALL)

SCHEMA = {
    "type": "function",
    "function": {
        "name": TOOL,
        "description": "Shows a region of the picture at full resolution.",
        "parameters": {
            "type": "object",
            "properties": {
                "bbox_2d": {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 4,
                    "maxItems": 4,
                    "description": "x1, y1, x2, y2 of the region, from 0 to 1000 across and "
                    "down the "
                    "picture.",
                },
                "label": {"type": "string", "description": "What should be there."},
                "img_idx": {
                    "type": "number",
                    "description": "Number of the picture among those of the user, from 0.",
                },
            },
            "required": ["bbox_2d"],
        },
    },
}


SYSTEM = "You answer questions about a picture. Zoom in where you cannot see enough, then answer."
SYSTEM_WITH_TOOL = (
    f"{SYSTEM}\n\n# Tool\n{TOOL} shows a region of the picture at full resolution. bbox_2d "
    f"is [x1, y1, x2, y2], from 0 to 1000 across "
    "and down the picture.\nTo call it, write\n" + call_text(TOOL, '{"bbox_2d": [x1, y1, x2, y2]}')
)
DIRECT_SYSTEM = "You answer questions about a picture."


def observe(view: View, number: int, asked: str) -> tuple[MessagePart, ...]:
    """A crop without text: the chat template marks a tool's message."""
    return (view,)


def parse(text: str, views: Sequence[View]) -> Action:
    """Parse a reply. Thinking is skipped; the first call or <answer> counts; without either, the
    text is the answer.

    Args:
        text: the reply, of any form.
        views: pictures shown so far; boxes refer to the original, as `img_idx` counts only the
            user's picture, which is one.
    """
    thought, end, text = text.rpartition("</think>")
    exact = only_thought(thought + end)
    called = _CALL.search(text)
    answered = ANSWER.search(text)
    if answered and (called is None or answered.start() < called.start()):
        return said(answered.group(1), exact=exact and is_alone(answered, _CALL))
    if called is not None:
        tagged = TOOL_CALL.match(text, called.start())
        exact = exact and tagged is not None and is_alone(tagged)
        return exact_if(exact, _read_call(called.group(1) or called.group(2) or "", views))
    if "<think>" in text:
        return malformed(
            Reason.NO_ACTION,
            "The thinking has no end, and there is neither a tool call nor an answer.",
        )
    bare = _FENCED.match(text)
    if bare and _is_call(bare.group(1)):
        return exact_if(False, _read_call(bare.group(1), views))
    return said(text, exact=exact and only_thought(text))


def _is_original(picture: Any) -> bool:
    return picture is ... or picture == 0


_ARGUMENTS = {"bbox_2d": in_order, "label": text_or_absent, "img_idx": _is_original}


def write_call(box: Box, first_view: View) -> str:
    """A call for `box`, in thousandths of the original."""
    return call_text(TOOL, json.dumps({"bbox_2d": list(box.to_pixels(FRAME))}))


def _is_call(text: str) -> bool:
    try:
        value = read_json(text)
    except ValueError:
        return False
    return isinstance(value, dict) and "name" in value and "arguments" in value


def _read_call(body: str, views: Sequence[View]) -> Action:
    xml = "<function=" in body
    arguments = _xml_arguments(body) if xml else tool_arguments(body, TOOL)
    if isinstance(arguments, Malformed):
        return arguments
    picture = arguments.get("img_idx")
    if picture is not None and whole_number(picture) != 0:
        return malformed(Reason.BAD_SOURCE, "img_idx must be 0: there is one picture.")
    exact = _is_exact_xml(body) if xml else is_exact(body, hermes_form(TOOL, **_ARGUMENTS))
    crop = crop_of(four_numbers(arguments.get("bbox_2d")), FRAME, views, exact=exact)
    if isinstance(crop, Malformed):
        return crop
    width, height = views[0].original_size
    shown = crop.box.at_least(LEAST_SIDE / width, LEAST_SIDE / height)
    return crop if shown == crop.box else replace(crop, wider=shown)


def _xml_arguments(body: str) -> dict[str, Any] | Malformed:
    function = _FUNCTION.match(body)
    if function is None:
        return malformed(
            Reason.BAD_JSON,
            "The tool call is neither valid JSON nor <function=...> with parameters.",
        )
    if function.group(1) != TOOL:
        return malformed(Reason.UNKNOWN_TOOL, f"The only tool is {TOOL}.")
    return {name: from_text(value.strip()) for name, value in _PARAMETER.findall(function.group(2))}


def _is_exact_xml(body: str) -> bool:
    """Whether `body` is one closed function of closed parameters, all of the tool, none twice."""
    function = _FUNCTION.fullmatch(body.rstrip())
    if function is None or not is_closed(function, 2):
        return False
    given = list(_PARAMETER.finditer(function.group(2)))
    values = {one.group(1): one.group(2) for one in given}
    return (
        len(values) == len(given)
        and all(is_closed(one, 2) for one in given)
        and not _PARAMETER.sub("", function.group(2)).strip()
        and all(
            name == "label" or (name in _ARGUMENTS and is_exact(text, _ARGUMENTS[name]))
            for name, text in values.items()
        )
    )


QWEN3_VL = ChatProtocol(
    name="qwen3_vl",
    system=SYSTEM,
    direct_system=DIRECT_SYSTEM,
    parser=parse,
    ask=ask,
    write_call=write_call,
    observe=observe,
    observe_nothing="No picture.",
    observation_role="tool",
    stop=("</tool_call>",),
    native_tools=(SCHEMA,),
    call_text=call_text,
    thinks=True,
    frame=FRAME,
    crop=CropRules(factor=32, min_tokens=256),
    as_released=Released(parser=parse_as_released, crop=RELEASED_CROP),
)
QWEN3_VL_USER = replace(
    QWEN3_VL,
    name="qwen3_vl_user",
    observe=observe_tagged,
    observe_nothing="<tool_response>No picture.</tool_response>",
    observation_role="user",
)
QWEN3_VL_TEXT = replace(
    QWEN3_VL_USER, name="qwen3_vl_text", system=SYSTEM_WITH_TOOL, native_tools=()
)
