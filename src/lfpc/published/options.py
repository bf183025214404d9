"""Lettered options of published questions: at the end of the text, in columns, or in a list."""

import random
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from string import ascii_uppercase
from typing import Any

from lfpc.errors import SampleError
from lfpc.published.cells import absent, parsed_list

LETTERS = ascii_uppercase
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
_LINE_MARK = r"\s*(?:\({0}\)[.:]?|\[{0}\][.:]?|（{0}）|{0}[.):、．：]|{0}(?=\s))\s*"  # noqa: RUF001
_OWN_MARK = (
    r"\s*(?:\({0}\)[.:]?|\[{0}\][.:]?|（{0}）"  # noqa: RUF001
    r"|{0}[.):](?=\s|\w{{2}}|\d|\Z)|{0}[、．：])\s*"  # noqa: RUF001
)

_BARE_MARK = rf"(?:{_OWN_MARK}|\s*{{0}}\s+)"


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
    return question, _without_separators(options)


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


def _without_separators(options: tuple[str, ...]) -> tuple[str, ...]:
    """Options without the comma or semicolon that separates them."""
    for separator in ",;":
        if all(option.endswith(separator) for option in options[:-1]):
            return tuple(option.rstrip(separator).rstrip() or option for option in options)
    return options


def with_options(text: str, answer: str) -> tuple[str, tuple[str, ...], str]:
    """Question, options and answer of a text that may end in lettered options.

    If the answer is none of them, the question is an open one with the unchanged text.
    """
    question, options = split_options(text)
    if not options or not question:
        return text, (), answer
    try:
        return question, options, lettered(answer, options)
    except SampleError:
        return text, (), answer


def without_listed(text: str, options: Sequence[str]) -> str:
    """A question without the list of its options, if it repeats exactly these at its end."""
    question, repeated = split_options(text)
    same = [plain(option) for option in repeated] == [plain(option) for option in options]
    return question if repeated and same and question else text.strip()


def column_options(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Options in columns A, B, ...; the empty ones at the end are absent.

    Raises:
        SampleError: an empty column before a filled one.
    """
    return _without_gaps([_text_or_none(row.get(letter)) for letter in LETTERS])


def _text_or_none(cell: Any) -> str | None:
    return None if absent(cell) or str(cell).strip().casefold() == "nan" else str(cell).strip()


def _without_gaps(texts: Sequence[str | None]) -> tuple[str, ...]:
    """Texts without the empty ones at the end.

    Raises:
        SampleError: an empty one before another.
    """
    there = [text for text in texts if text]
    if any(not text for text in texts[: len(there)]):
        letter = LETTERS[next(i for i, text in enumerate(texts) if not text) % len(LETTERS)]
        raise SampleError(f"option {letter} is empty, but later ones are not")
    return tuple(there)


def lettered(answer: Any, options: Sequence[str]) -> str:
    """The letter of `answer`, given as "B", "(b)", "B. blue", or as the text of an option.

    An upper-case letter names an option by its place even if the text of another option is that
    letter. A text is compared exactly, then without case and a full stop at its end.

    Raises:
        SampleError: not one of the options, or the text of several.
    """
    said = str(answer).strip()
    letters = LETTERS[: len(options)]
    bare = said.strip("().:*[] \t\n")
    if len(bare) == 1 and bare in letters:
        return bare
    for form in (str.strip, plain):
        named = [
            letter
            for letter, text in zip(letters, options, strict=False)
            if form(text) == form(said)
        ]
        if len(named) > 1:
            raise SampleError(
                f"the answer {said[:60]!r} is the text of the options {' and '.join(named)}; give "
                f"the letter of one"
            )
        if named:
            return named[0]
    if len(bare) == 1 and bare.upper() in letters:
        return bare.upper()
    for letter, text in zip(letters, options, strict=False):
        mark = re.match(_OWN_MARK.format(letter), said)
        if mark and plain(said[mark.end() :]) == plain(text):
            return letter
    raise SampleError(
        f"the answer {said[:60]!r} is neither the letter nor the text of one of its "
        f"{len(options)} options"
    )


def plain(text: str) -> str:
    """A text without case, repeated spaces and a full stop at its end."""
    words = " ".join(text.casefold().split())
    return words.rstrip(".").rstrip() or words


def some_options(options: Any) -> tuple[str, ...]:
    """Two or more option texts, from a list, an object with letters as keys, or a text of either,
    or of marked options ("(A) red (B) blue", or one per line). Marks are dropped.

    Raises:
        SampleError: it is something else.
    """
    listed = options
    marked: tuple[str, ...] = ()
    if isinstance(options, str):
        listed = parsed_list(options)
        if listed is None:
            listed = marked = _marked(options)
    if isinstance(listed, Mapping):
        listed = _in_letter_order(listed)
    if not isinstance(listed, list | tuple):
        raise _no_options(options)
    if any(isinstance(text, list | tuple | Mapping) for text in listed):
        raise _no_options(options)
    texts = _without_gaps([None if absent(text) else str(text).strip() for text in listed])
    if len(texts) < 2:
        raise _no_options(options)
    if len(texts) > len(LETTERS):
        raise SampleError(f"{len(texts)} options; the letters A to Z name {len(LETTERS)}")
    return texts if marked else _unmarked(texts)


def _no_options(options: Any) -> SampleError:
    return SampleError(
        f"a multiple choice question needs two options or more, got {str(options)[:60]!r}"
    )


def _in_letter_order(options: Mapping[Any, Any]) -> list[Any]:
    """Values of an object; in the order of its keys if they are letters."""
    letters = {str(key).strip().strip("().").upper(): value for key, value in options.items()}
    if not all(len(letter) == 1 and letter in LETTERS for letter in letters):
        return list(options.values())
    last = max(letters, default="A")
    return [letters.get(letter) for letter in LETTERS[: LETTERS.index(last) + 1]]


def _marked(text: str) -> tuple[str, ...]:
    """The options of a text of marked ones; () for another text."""
    if "\n" not in text:
        text = text.replace("\\n", "\n")  # tables that escape line breaks
    return _marked_lines(text) or split_options(text)[1] or _marked_in_line(text)


def _marked_lines(text: str) -> tuple[str, ...]:
    """Options of a text whose lines begin with A, B, ..., with or without a point behind them; ()
    with fewer than two. An unmarked line continues the option above it.
    """
    options: list[str] = []
    for line in text.splitlines():
        letter = LETTERS[len(options) % len(LETTERS)]
        if mark := re.match(_LINE_MARK.format(letter), line):
            options.append(line[mark.end() :].strip())
        elif options and line.strip():
            options[-1] = f"{options[-1]} {line.strip()}"
    return tuple(options) if len(options) >= 2 else ()


def _marked_in_line(text: str) -> tuple[str, ...]:
    """Options of a text that begins with the mark of A and in which each further mark follows a
    space, as in "A.The bus B.The tram"; () with fewer than two.
    """
    marks = [re.match(_OWN_MARK.format("A"), text)]
    while (last := marks[-1]) and len(marks) < len(LETTERS):
        mark = re.compile(rf"(?<=[\s,;]){_OWN_MARK.format(LETTERS[len(marks)])}")
        marks.append(mark.search(text, last.end()))
    found = [mark for mark in marks if mark]
    if len(found) < 2:
        return ()
    ends = [mark.start() for mark in found[1:]] + [len(text)]
    options = [text[mark.end() : end].strip() for mark, end in zip(found, ends, strict=True)]
    return _without_separators(tuple(options)) if all(options) else ()


def _unmarked(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Options without their letters in front, if each has its own one."""
    for pattern, distinct in ((_OWN_MARK, False), (_BARE_MARK, True)):
        marks = [
            re.match(pattern.format(letter), text)
            for letter, text in zip(LETTERS, texts, strict=False)
        ]
        bare = tuple(_behind(text, mark) for text, mark in zip(texts, marks, strict=True))
        # "A flat" and "B flat" are notes: a bare letter is a mark only where its removal leaves
        # different texts.
        if all(bare) and not (distinct and len(set(bare)) < len(bare)):
            return bare
    return texts


def _behind(text: str, mark: re.Match[str] | None) -> str:
    """The text behind a mark; "" without a mark."""
    return text[mark.end() :].strip() if mark else ""


def shuffled(
    options: Sequence[str], right: int, *, seed: int, key: str
) -> tuple[tuple[str, ...], str, list[int]]:
    """Options in an order seeded by `seed` and `key`, the letter of the right one, and the
    published places.
    """
    order = list(range(len(options)))
    random.Random(f"{seed}/{key}").shuffle(order)
    return tuple(options[i] for i in order), LETTERS[order.index(right)], order
