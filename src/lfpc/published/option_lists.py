"""Lists of lettered options at the end of a question's text."""

import re
from collections.abc import Sequence
from itertools import takewhile

from lfpc.samples import LETTERS

_STYLES = (
    (r"\(([A-Z])\)[.:]?", r"\s*"),
    (r"\[([A-Z])\][.:]?", r"\s*"),
    (r"([A-Z])\.", r"\s+"),
    (r"([A-Z])\)", r"\s+"),
    (r"([A-Z]):", r"\s+"),
    (r"（([A-Z])）", r"\s*"),  # noqa: RUF001
    (r"([A-Z])[、．：]", r"\s*"),  # noqa: RUF001, marks of Chinese lists
)
"""Marks of an option, and the space a mark needs behind it inside a line."""
_LINE_MARKS = [re.compile(rf"^[ \t]*{mark}[ \t]*", re.MULTILINE) for mark, _ in _STYLES]
_MARKS = [re.compile(rf"(?:(?<=\s)|^){mark}(?:{space})", re.MULTILINE) for mark, space in _STYLES]
_LEAD_IN = re.compile(
    r"(?:^|(?<=[\s.?!]))(?:the\s+)?(?:answer\s+)?(?:options|choices)"
    r"(?:\s+are(?:\s+(?:listed\s+)?below)?)?\s*:\s*\Z",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"""[.?!:;…。？！：；]["'”’)\]]*\Z""")  # noqa: RUF001
_LEAD_LENGTH = 60
"""Characters in which the end of a sentence or a lead-in is searched."""
_JOINED = re.compile(r"(?:^|[\s,;])(?:or|and|nor|vs\.?|versus|&)$")
"""Last word of a text that goes on behind the next mark, as in "(A) or (B)"."""


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Split lettered options from the end of a question: one per line as "A. red", or in one line
    behind the question: "What colour? (A) red (B) blue".

    Letters inside a sentence ("Which panel, (A) or (B), shows the cat?") are no list. Text after
    the line of the last option is dropped: it instructs a model how to answer, as the protocol
    does.

    Returns:
        The question and its options; the unchanged text and () without a list of two or more in the
        order A, B, ...
    """
    for mark in _LINE_MARKS:
        if found := _list_of_lines(text, mark):
            return found
    for mark in _MARKS:
        if found := _list_in_line(text, mark):
            return found
    return text.strip(), ()


def _list_of_lines(text: str, mark: re.Pattern[str]) -> tuple[str, tuple[str, ...]] | None:
    """Question and options of a text in which each option has its own line."""
    run = _last_run(list(mark.finditer(text)))
    return _question_and_options(text, run, mark) if len(run) >= 2 else None


def _list_in_line(text: str, mark: re.Pattern[str]) -> tuple[str, tuple[str, ...]] | None:
    """Question and options of a text with options one behind the other.

    The list begins a line or a sentence, its marks appear once, and its options are neither empty,
    nor joined by "or", nor the rest of a sentence.
    """
    marks = list(mark.finditer(text))
    run = _last_run(marks)
    if len(run) < 2 or run[-1] is not marks[-1]:
        return None
    found = _question_and_options(text, run, mark)
    if found is None or not _begins_a_part(text[: run[0].start()]):
        return None
    question, options = found
    if any(_JOINED.search(option) for option in options[:-1]):
        return None
    if any(len(option) > 1 and option[0] in ",;?!)" for option in options):
        return None
    if options[-1].endswith("?") and len(options[-1]) > 1 and not options[0].endswith("?"):
        return None
    return question, without_separators(options)


def _begins_a_part(before: str) -> bool:
    """Whether a text ends where a line, a sentence or a list of options begins."""
    end = before.rstrip()
    return (
        not end
        or "\n" in before[len(end) :]
        or _SENTENCE_END.search(end[-_LEAD_LENGTH:]) is not None
        or _LEAD_IN.search(end[-_LEAD_LENGTH:]) is not None
    )


def _last_run(marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The last marks A, B, ... in this order; a single one is no run."""
    for start in range(len(marks) - 1, -1, -1):
        if marks[start].group(1) == "A":
            pairs = zip(LETTERS, marks[start : start + len(LETTERS)], strict=False)
            run = [mark for _, mark in takewhile(lambda pair: pair[0] == pair[1].group(1), pairs)]
            if len(run) >= 2:
                return run
    return []


def _question_and_options(
    text: str, run: Sequence[re.Match[str]], mark: re.Pattern[str]
) -> tuple[str, tuple[str, ...]] | None:
    """The text before a run of marks, and the texts behind the marks; None if an option is empty,
    or if the question is asked behind the list.
    """
    ends = [mark.start() for mark in run[1:]] + [len(text)]
    options = [text[mark.end() : end].strip() for mark, end in zip(run, ends, strict=True)]
    if not all(options):
        return None
    last, _, tail = options[-1].partition("\n")
    options[-1] = last.strip()
    question = text[: run[0].start()].strip()
    asks_behind = re.search(r"[?？]", tail)  # noqa: RUF001
    if asks_behind and (not re.search(r"[?？]", question) or mark.search(tail)):  # noqa: RUF001
        return None
    lead_in = _LEAD_IN.search(question, max(0, len(question) - _LEAD_LENGTH))
    return (question[: lead_in.start()].strip() if lead_in else question), tuple(options)


def without_separators(options: tuple[str, ...]) -> tuple[str, ...]:
    """Options without the comma or semicolon that separates them."""
    for separator in ",;":
        if all(option.endswith(separator) for option in options[:-1]):
            return tuple(option.rstrip(separator).rstrip() or option for option in options)
    return options
