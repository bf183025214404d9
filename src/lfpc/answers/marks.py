r"""What a reply marks as its answer: `<answer>` tags and `\boxed{}`, and the LaTeX inside them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lfpc.answers.wording import plain


@dataclass(frozen=True, slots=True)
class Stated:
    """The texts that a reply states as its answer. Several have to name the same answer."""

    texts: tuple[str, ...]
    before: str = ""
    """Text in front of the first mark."""
    after: str = ""
    """Text behind the last mark."""


@dataclass(frozen=True, slots=True)
class _Mark:
    start: int
    end: int
    content: str


_TAG = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_BRACE = re.compile(r"\\(?:boxed|fbox)\s?\{|\\[{}]|[{}]")
_JSON = re.compile(r'\{\s?"(?:final_)?answer"\s?:\s?"([^"{}]*)"\s?\}', re.IGNORECASE)
_JOINED_BEFORE = re.compile(
    r"(?:(?:\b(?:or|nor|not|never|neither|either|except|cannot|without)|n't)"
    r"(?: be| is| the| an?| option| choice| answer){0,3}"
    r"|\b(?:and|but|also|than|versus|vs\.?)|(?<!\w)\w ?,|[/&|])[\s:*\"'(\[$]*\Z",
    re.IGNORECASE,
)
_JOINED_AFTER = re.compile(
    r"[\s*\"')\]$.,;!?]*(?:(?:or|and|nor|but|maybe|perhaps|possibly|alternatively|is not|isn't|is "
    r"wrong|is incorrect|is false|would be wrong|cannot|wait|no|actually)\b|[/&|]|,\s?\S)",
    re.IGNORECASE,
)
_CORRECTED = re.compile(r"\b(?:no|wait|actually|correction|sorry|instead|mistake)\b", re.IGNORECASE)


def stated_answers(reply: str) -> Stated:
    """The marked answers of a reply, else its whole text; no text if a mark is joined with more.

    Thoughts are left out. A corrected mark ("no: ...") does not count.
    """
    text = reply.rpartition("</think>")[2].strip()
    stated = Stated((text,))
    for find in (_tags, _boxes, _fields):
        if marks := find(text):
            stated = _counted(text, marks)
            text = stated.texts[-1] if stated.texts else ""
            if len(stated.texts) != 1:
                break
            stated = Stated((text,), stated.before, stated.after)
    return Stated(
        tuple(map(without_latex, stated.texts)),
        without_latex(stated.before),
        without_latex(stated.after),
    )


def _counted(text: str, marks: Sequence[_Mark]) -> Stated:
    last = marks[-1]
    line = text[max(0, last.start - 60) : last.start].rpartition("\n")[2]
    after = text[last.end :]
    if _JOINED_BEFORE.search(line) or _JOINED_AFTER.match(after):
        return Stated(())
    kept = [last.content]
    for mark, follower in reversed(list(pairwise(marks))):
        if _CORRECTED.search(text, mark.end, follower.start):
            break
        kept.insert(0, mark.content)
    return Stated(tuple(kept), text[: marks[0].start], after)


def _tags(text: str) -> list[_Mark]:
    return [_Mark(*found.span(), found.group(1).strip()) for found in _TAG.finditer(text)]


def _fields(text: str) -> list[_Mark]:
    return [_Mark(*found.span(), found.group(1).strip()) for found in _JSON.finditer(text)]


def _boxes(text: str) -> list[_Mark]:
    r"""Outermost `\boxed{}` with balanced braces."""
    marks: list[_Mark] = []
    opened: list[tuple[int, int, bool]] = []
    for found in _BRACE.finditer(text):
        brace = found.group()
        if brace in ("\\{", "\\}"):
            continue
        if brace != "}":
            opened.append((found.start(), found.end(), brace != "{"))
        elif opened:
            start, content, boxed = opened.pop()
            if boxed:
                while marks and marks[-1].start > start:
                    marks.pop()
                marks.append(_Mark(start, found.end(), text[content : found.start()]))
    return marks


_MACRO = r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:bf|rm|sf|it|tt|bb)?|mbox|operatorname|bf|rm)"
_LATEX: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\\(?:[ ,;:!]|quad\b|qquad\b|displaystyle\b)|(?<!\\)~"), " "),
    (re.compile(r"\\(?:left|right)(?=[()\[\]{}|.\\])|\\[()\[\]]"), ""),
    (re.compile(rf"{_MACRO}\s?\{{([^{{}}]*)\}}"), r"\1"),
    (re.compile(r"\\[dt]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\sqrt\s?\{([^{}]*)\}"), "\u221a\\1"),
    (re.compile(r"\^\s?(?:\\circ\b|\{\s?\\circ\s?\})"), "\u00b0"),
    (re.compile(r"\\times\b"), "\u00d7"),
    (re.compile(r"\\([%$#&_{}])"), r"\1"),
)
_DEPTH = 4
"""Macros nested deeper than this stay unread."""


def without_latex(text: str) -> str:
    """The text without LaTeX macros; unknown ones stay, and match no answer."""
    for _ in range(_DEPTH):
        if "\\" not in text:
            break
        before = text
        for pattern, with_text in _LATEX:
            text = pattern.sub(with_text, text)
        if text == before:
            break
    return text


def lines_of(text: str) -> list[str]:
    """Plain lines that hold anything, without bold marks, bullets and signs of headings."""
    lines = [plain(re.sub(r"\*\*|__|`", "", line)) for line in text.splitlines()]
    lines = [re.sub(r"^(?:[-*\u2022>]|#{1,6}) (?!\d)", "", line) for line in lines]
    return [line for line in lines if line]
