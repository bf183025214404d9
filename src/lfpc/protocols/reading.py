"""Shared parts of parsers: precedence of call and answer, JSON with bounded repair, four numbers to
a Crop.

Every function accepts any reply of a model, returns a value, and raises only the `ValueError` in
its docstring.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lfpc.boxes import Box, Size
from lfpc.dialogue import Action, Answer, Crop, Malformed, Reason
from lfpc.errors import BoxError
from lfpc.images import View
from lfpc.protocols.base import MessagePart
from lfpc.protocols.exact import exact_if, is_alone, only_thought

TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
MOST_CLOSERS = 8
"""Maximum brackets that repair closes; a call nests at most three deep."""
LONGEST_REPAIR = 4_000
"""Maximum characters of a call for repair."""

_BOXED = re.compile(r"\\boxed\s?\{")
_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")
_TRAILING_COMMA = re.compile(r",\s{0,20}([\]}])")
_CLOSER = {"{": "}", "[": "]"}


def ask(question: str, options: Sequence[str]) -> str:
    """The question, and its options as lettered lines."""
    return "\n".join([question, *(f"{chr(65 + i)}. {text}" for i, text in enumerate(options))])


def observe_tagged(view: View, number: int, asked: str) -> tuple[MessagePart, ...]:
    """A crop between tool_response tags."""
    return ("<tool_response>", view, "</tool_response>")


def malformed(reason: Reason, why: str) -> Malformed:
    """A Malformed; `why` is a sentence for the policy."""
    return Malformed(reason, f"Error: {why}")


def said(text: str, *, exact: bool = True) -> Action:
    """An Answer, or a Malformed if the text is empty."""
    return (
        Answer(text.strip(), exact)
        if text.strip()
        else malformed(Reason.EMPTY_ANSWER, "The answer is empty.")
    )


def boxed_answer(text: str) -> str | None:
    r"""The content of the last \boxed{}, with matched braces; None without one. An unclosed one
    ends with the text.
    """
    boxes = list(_BOXED.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    end = _closing_brace(text, start)
    inner = text[start:end].strip()
    worded = _TEXT.fullmatch(inner)
    return worded.group(1) if worded else inner


def is_only_boxed(text: str, call: re.Pattern[str]) -> bool:
    r"""Whether a reply has one \boxed{}, closed, no call and no unfinished thinking. Words may
    follow it.
    """
    boxes = list(_BOXED.finditer(text))
    return (
        len(boxes) == 1
        and _closing_brace(text, boxes[0].end()) is not None
        and only_thought(text)
        and call.search(text) is None
    )


def _closing_brace(text: str, start: int) -> int | None:
    """The place of the brace that closes the one before `start`; None: it is not closed."""
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return end
    return None


def call_or_answer(
    text: str,
    call: re.Pattern[str],
    read_call: Callable[[str], Action],
    *,
    answer_wins: bool = False,
    calls_in_thinking: bool = False,
) -> Action:
    """The first call or answer of a reply; with `answer_wins` an answer anywhere wins.

    Args:
        text: the reply.
        call: pattern of a call, whose first group goes to `read_call`.
        answer_wins: see above.
        calls_in_thinking: whether the prompt asks for calls inside the thinking.
    """
    called = call.search(text)
    answered = ANSWER.search(text)
    if answered and (called is None or answer_wins or answered.start() < called.start()):
        return said(answered.group(1), exact=is_alone(answered, call))
    if called is None:
        return malformed(Reason.NO_ACTION, "There is neither a tool call nor an answer.")
    alone = is_alone(called, thinking=calls_in_thinking)
    return exact_if(alone, read_call(called.group(1)))


def read_json(text: str, *, repair: bool = True) -> Any:
    """The first JSON value in `text`.

    Repair is bounded: words or a fence in front, single quotes in a text without double ones,
    commas before a closing bracket, up to `MOST_CLOSERS` missing closing brackets, in a text of up
    to `LONGEST_REPAIR` characters. A value that ends inside a number stays broken, as its digits
    are unknown.

    Raises:
        ValueError: not JSON, even after repair.
    """
    text = text.strip()
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError) as error:
        if not repair or "{" not in text or len(text) > LONGEST_REPAIR:
            raise ValueError("not JSON") from error
    try:
        return json.JSONDecoder().raw_decode(_repaired(text[text.index("{") :]))[0]
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON, nor with repair") from error


def _repaired(text: str) -> str:
    if '"' not in text:
        text = text.replace("'", '"')
    text = _TRAILING_COMMA.sub(r"\1", text)
    done: list[str] = []
    open_brackets: list[str] = []
    quoted = escaped = False
    for char in text:
        if quoted:
            quoted = escaped or char != '"'
            escaped = not escaped and char == "\\"
        elif char == '"':
            quoted = True
        elif char in _CLOSER:
            open_brackets.append(char)
        elif char in "]}":
            while open_brackets and _CLOSER[open_brackets[-1]] != char:
                done.append(_CLOSER[open_brackets.pop()])
            if open_brackets:
                open_brackets.pop()
        done.append(char)
        if not open_brackets and not quoted:
            break
    if open_brackets and (
        quoted or len(open_brackets) > MOST_CLOSERS or done[-1] in "0123456789.-+eE"
    ):
        raise ValueError("cut off")
    return "".join(done).rstrip().rstrip(",") + "".join(
        _CLOSER[bracket] for bracket in reversed(open_brackets)
    )


def hermes_call(tool: str, arguments: Mapping[str, Any]) -> str:
    """The inverse of `tool_arguments`: a call between its tags."""
    return f"<tool_call>{json.dumps({'name': tool, 'arguments': arguments})}</tool_call>"


def call_text(name: str, arguments: str, edge: str = "\n") -> str:
    """The text of a call that a server took out of the reply.

    Args:
        name: name of the tool.
        arguments: arguments as the server's JSON, which need not be valid.
        edge: text between a tag and the call.
    """
    called = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}'
    return f"<tool_call>{edge}{called}{edge}</tool_call>"


def inline_call_text(name: str, arguments: str) -> str:
    """The same without line breaks, as `hermes_call` writes a call."""
    return call_text(name, arguments, edge="")


def tool_arguments(body: str, tool: str, *, repair: bool = True) -> dict[str, Any] | Malformed:
    """The arguments of a Hermes call, `{"name": tool, "arguments": {...}}`; arguments may be a text
    of JSON.
    """
    try:
        call: Any = read_json(body, repair=repair)
    except ValueError:
        return malformed(Reason.BAD_JSON, "The tool call is not valid JSON.")
    if not isinstance(call, dict) or call.get("name") != tool:
        return malformed(Reason.UNKNOWN_TOOL, f"The only tool is {tool}.")
    arguments = from_text(call.get("arguments")) if repair else call.get("arguments")
    return arguments if isinstance(arguments, dict) else {}


def from_text(value: Any) -> Any:
    """A text of JSON as its value; any other value unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return read_json(value)
    except ValueError:
        return value


def four_numbers(value: Any, *, lenient: bool = True) -> tuple[float, float, float, float] | None:
    """A list of four numbers; `lenient`: also as a text of JSON, or nested in a list. A number too
    large for a float is infinite.
    """
    if lenient:
        value = from_text(value)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(
        isinstance(number, int | float) and not isinstance(number, bool) for number in value
    ):
        return None
    a, b, c, d = map(_as_float, value)
    return a, b, c, d


def _as_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf")


def whole_number(value: Any) -> int | None:
    """An index given as a whole number, a float or a short text; else None."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,6}\s*", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None


BAD_BOX = malformed(Reason.BAD_BOX, "The box must be four numbers, [x1, y1, x2, y2].")
"""Text of `crop_of` without four numbers."""


def crop_of(
    numbers: tuple[float, float, float, float] | None,
    frame: Size,
    views: Sequence[View],
    source: int = 0,
    *,
    exact: bool = True,
) -> Crop | Malformed:
    """The Crop of the four `numbers`.

    Args:
        numbers: x1, y1, x2, y2 as the policy wrote them; parts outside the picture are cut off,
            swapped corners put in order.
        frame: (width, height) of the picture they refer to, in their unit.
        views: pictures shown so far.
        source: number of the picture they refer to.
        exact: see `Crop.exact`.
    """
    if numbers is None:
        return BAD_BOX
    if not 0 <= source < len(views):
        return malformed(
            Reason.BAD_SOURCE, f"There is no such picture; {len(views)} have been shown."
        )
    try:
        box = Box.from_pixels(numbers, frame).within(views[source].region)
    except BoxError:
        return malformed(
            Reason.EMPTY_BOX,
            f"The box has no area inside the picture, which goes from 0 to {frame[0]} "
            f"across and 0 to {frame[1]} down.",
        )
    return Crop(box, emitted=numbers, source=source, exact=exact)


def check_shape(
    crop: Crop, size: Size, *, above: float = 0.0, aspect: float = float("inf")
) -> Crop | Malformed:
    """The crop, or a Malformed if a side is too short or the aspect too large.

    Args:
        crop: the crop to check.
        size: (width, height) of the whole original in pixels.
        above: minimum side in those pixels (exclusive).
        aspect: maximum ratio of the longer to the shorter side.
    """
    x0, y0, x1, y1 = crop.shown.corners
    width = (x1 - x0) * size[0]
    height = (y1 - y0) * size[1]
    if min(width, height) <= above:
        return malformed(
            Reason.TOO_SMALL,
            f"The box is too small: each side must be longer than {above:g} pixels.",
        )
    if max(width, height) > aspect * min(width, height):
        return malformed(
            Reason.TOO_NARROW,
            f"The box is too narrow: one side is more than {aspect:g} times the other.",
        )
    return crop
