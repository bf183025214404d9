"""Values in the cells of published rows: absent ones, lists as text, answers in their wrappings."""

import ast
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from lfpc.errors import SampleError

_LONGEST_LIST = 100_000
"""Maximum characters of a list in a text cell."""
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BOXED = "\\boxed{"
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|textit)\{([^{}]*)\}\Z")


def absent(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN, an empty text, list or object."""
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | tuple | Mapping | bytes) and not value)


def without_nan(value: Any) -> Any:
    """A value in which None replaces every NaN, at any depth."""
    match value:
        case float():
            return None if math.isnan(value) else value
        case dict():
            return {name: without_nan(inner) for name, inner in value.items()}
        case list():
            return [without_nan(inner) for inner in value]
        case _:
            return value


def parsed_list(text: str) -> list[Any] | dict[str, Any] | None:
    """The list or object that a text writes down, in JSON or as Python prints it; None for another
    text. Only literals are read: nothing in the text is evaluated.
    """
    text = text.strip()
    if len(text) > _LONGEST_LIST or (text[:1], text[-1:]) not in (("[", "]"), ("{", "}")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = without_nan(read(text))
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | dict):
            return found
    return None


def plain_answer(value: Any) -> str:
    r"""The text of a reference answer: without `<answer>` or `\boxed{}` around it, from a list of
    one, also in a text.

    Raises:
        SampleError: no answer, several, or an object.
    """
    if isinstance(value, str) and value.strip()[:2] in ('["', "['"):
        listed = parsed_list(value)
        value = listed if isinstance(listed, list) and len(listed) == 1 else value
    if isinstance(value, list | tuple):
        there = [one for one in value if not absent(one)]
        if len(there) != 1:
            raise SampleError(f"{len(there)} answers; a sample has one")
        return plain_answer(there[0])
    if absent(value) or isinstance(value, Mapping | bytes):
        raise SampleError(f"an answer is a text, got {type(value).__name__}")
    text = str(value).strip()
    tagged = _TAGGED.findall(text)
    return _unboxed(tagged[-1].strip() if tagged else text)


def _unboxed(text: str) -> str:
    r"""The content of the last `\boxed{}` in a text; the text without one."""
    start = text.rfind(_BOXED)
    if start < 0:
        return text
    depth = 1
    begin = start + len(_BOXED)
    for end in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            content = text[begin:end].strip()
            inner = _WRAPPED.match(content)
            return (inner.group(1).strip() if inner else content) or text
    return text
