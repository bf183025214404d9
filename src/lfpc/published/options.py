"""Options of multiple choice questions, in the text, in columns, in a list or in one cell, and the
answers that name one of them.
"""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lfpc.errors import SampleError
from lfpc.published.cells import absent, parsed_list
from lfpc.published.option_lists import split_options, without_separators
from lfpc.samples import LETTERS

_LINE_MARK = r"\s*(?:\({0}\)[.:]?|\[{0}\][.:]?|（{0}）|{0}[.):、．：]|{0}(?=\s))\s*"  # noqa: RUF001
_OWN_MARK = (
    r"\s*(?:\({0}\)[.:]?|\[{0}\][.:]?|（{0}）"  # noqa: RUF001
    r"|{0}[.):](?=\s|\w{{2}}|\d|\Z)|{0}[、．：])\s*"  # noqa: RUF001
)

_BARE_MARK = rf"(?:{_OWN_MARK}|\s*{{0}}\s+)"


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
    return without_separators(tuple(options)) if all(options) else ()


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
