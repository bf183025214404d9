"""Whether a reply is exactly what its prompt asks for, which alone a reward pays for.

The parsers also read replies that are repaired, not closed, or hold more than one call or answer. A
policy that is paid for those writes more and more of them.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import EllipsisType
from typing import Any

from lfpc.dialogue import Action, Malformed

Form = Mapping[str, Any] | Callable[[Any], bool] | str
"""Form of a value of JSON: the text itself, a test, or the forms of an object's keys. The test of a
key that is absent gets `...`."""

_TAG = re.compile(r"</?(?:think|answer|tool_call|tool_response)>")
_THOUGHT: tuple[list[str], ...] = ([], ["</think>"], ["<think>", "</think>"])
"""Tags of finished thinking, whose first may be in the prompt."""


def exact_if(exact: bool, action: Action) -> Action:
    """`action`, which is not exact unless `exact`."""
    return action if exact or isinstance(action, Malformed) else replace(action, exact=False)


def is_alone(tagged: re.Match[str], *others: re.Pattern[str], thinking: bool = False) -> bool:
    """Whether a match between tags is closed, ends the reply, and no other tag is in the reply than
    those of one finished thinking before it.

    Args:
        tagged: the match, whose first group is the text between the tags.
        others: patterns of the protocol's other calls or answers.
        thinking: whether it may be inside the thinking.
    """
    text, inside = tagged.string, tagged.group(1)
    before = text[: tagged.start()]
    tagless = only_thought(before) or (thinking and _TAG.findall(before) == ["<think>"])
    return (
        is_closed(tagged)
        and not text[tagged.end() :].strip()
        and tagless
        and not any(pattern.search(inside) for pattern in (_TAG, tagged.re, *others))
        and not any(pattern.search(before) for pattern in others)
    )


def is_closed(tagged: re.Match[str], group: int = 1) -> bool:
    """Whether a closing tag follows the `group` of a match."""
    return tagged.end(group) < tagged.end()


def only_thought(text: str) -> bool:
    """Whether the only tags in `text` are those of one finished thinking."""
    return _TAG.findall(text) in _THOUGHT


def is_absent(value: Any) -> bool:
    """Whether a value is absent."""
    return value is ...


def is_exact(text: str, form: Form, further: Callable[[Any], bool] = is_absent) -> bool:
    """Whether `text` is one value of JSON as it stands, without a key twice, in this form, with
    `further` for every key that the form does not name.
    """
    try:
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return False
    return _fits(value, form, further)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def _fits(value: Any, form: Form, further: Callable[[Any], bool]) -> bool:
    if isinstance(form, str):
        return value == form
    if not isinstance(form, Mapping):
        return form(value)
    if not isinstance(value, dict):
        return False
    return all(
        _fits(value.get(key, ...), form.get(key, further), further) for key in {*value, *form}
    )


def hermes_form(tool: str, **arguments: Form) -> Form:
    """The form of a Hermes call with these arguments."""
    return {"name": tool, "arguments": arguments}


def in_order(value: Any) -> bool:
    """Whether a value is [x1, y1, x2, y2], numbers, the top left corner first."""
    if not (isinstance(value, list) and len(value) == 4 and all(map(is_number, value))):
        return False
    x1, y1, x2, y2 = value
    return x1 < x2 and y1 < y2


def is_number(value: Any) -> bool:
    """Whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def text_or_absent(value: Any) -> bool:
    """Whether a value is a text, or absent."""
    return isinstance(value, str | EllipsisType)


def is_plain(value: Any) -> bool:
    """Whether a value is neither a list nor an object, so cannot hold a box."""
    return not isinstance(value, list | dict)
