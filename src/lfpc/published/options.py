"""Lettered options of published questions: at the end of the text, in columns, or in a list."""

import random
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from lfpc.errors import SampleError
from lfpc.samples import LETTERS

_MARK = re.compile(r"(?:(?<=\s)|^)(?:\(([A-Z])\)\s*|([A-Z])[.):]\s+)", re.MULTILINE)


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Split lettered options from the end of a question: "... (A) red (B) blue", or one per line as
    "A. red".

    Text after the line of the last option is dropped: it instructs a model how to answer, as the
    protocol does.

    Returns:
        The question and its options; the unchanged text and () with fewer than two in the order A,
        B, ...
    """
    marks = list(_MARK.finditer(text))
    starts = [i for i, mark in enumerate(marks) if "A" in mark.groups()]
    for start in reversed(starts):
        in_order = takewhile(
            lambda pair: pair[0] in pair[1].groups(), zip(LETTERS, marks[start:], strict=False)
        )
        run = [mark for _, mark in in_order]
        if len(run) >= 2:
            ends = [mark.start() for mark in run[1:]] + [len(text)]
            options = [text[mark.end() : end].strip() for mark, end in zip(run, ends, strict=True)]
            options[-1] = options[-1].splitlines()[0].strip() if options[-1] else ""
            return text[: run[0].start()].strip(), tuple(options)
    return text.strip(), ()


def with_options(text: str, answer: str) -> tuple[str, tuple[str, ...], str]:
    """Question, options and answer of a text that may end in lettered options.

    If the answer is none of them, the question is an open one with the unchanged text.
    """
    question, options = split_options(text)
    try:
        return (
            (question, options, lettered(answer, options))
            if options and question
            else (text, (), answer)
        )
    except SampleError:
        return text, (), answer


def column_options(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Options in columns A, B, ..., before the first empty one."""
    options: list[str] = []
    for letter in LETTERS:
        text = str(row.get(letter) if row.get(letter) is not None else "").strip()
        if not text or text.casefold() == "nan":
            break
        options.append(text)
    return tuple(options)


def lettered(answer: Any, options: Sequence[str]) -> str:
    """The letter of `answer`, given as a letter, in brackets or as the text of an option.

    Raises:
        SampleError: not one of the options.
    """
    said = str(answer).strip().strip("().: ")
    if said.upper() in LETTERS[: len(options)] and len(said) == 1:
        return said.upper()
    if str(answer).strip() in options:
        return LETTERS[options.index(str(answer).strip())]
    raise SampleError(
        f"the answer {str(answer)[:60]!r} is neither the letter nor the text of one of its "
        f"{len(options)} options"
    )


def some_options(options: Any) -> tuple[str, ...]:
    """A list of at least two option texts.

    Raises:
        SampleError: it is something else.
    """
    if (
        not isinstance(options, list | tuple)
        or len(options) < 2
        or not all(str(text).strip() for text in options)
    ):
        raise SampleError(
            f"a multiple choice question needs two options or more, got {str(options)[:60]!r}"
        )
    return tuple(str(text).strip() for text in options)


def shuffled(
    options: Sequence[str], right: int, *, seed: int, key: str
) -> tuple[tuple[str, ...], str, list[int]]:
    """Options in an order seeded by `seed` and `key`, the letter of the right one, and the
    published places.
    """
    order = list(range(len(options)))
    random.Random(f"{seed}/{key}").shuffle(order)
    return tuple(options[i] for i in order), LETTERS[order.index(right)], order
