"""Whether an answer was given before the first crop."""

import re
from collections.abc import Sequence

from lfpc.answers.options import named_option
from lfpc.answers.wording import normalise
from lfpc.samples import LETTERS

_CALL = re.compile(r"<(?:tool_call|grounding|zoom|code|function)\b|\{\s*\"name\"")
"""Beginning of a call in any protocol; the numbers and labels of a call do not count as an
answer."""


def answered_before_crop(
    replies: Sequence[str], said: str | None, *, question: str, options: Sequence[str] = ()
) -> bool | None:
    """Whether the final answer is in the text before the first crop.

    Without options: the normalised answer as whole words. With options: the option's letter marked
    as one ("(B)", "B.", "answer B") or its text, and no other option's. None, undecidable: no crop,
    no final answer, an answer that is none of the options, or (without options) one whose words the
    question itself contains.

    Args:
        replies: texts of the replies up to and including the one with the first call; empty: no
            crop.
        said: the policy's final answer.
        question: the question.
        options: texts of the options A, B, ...
    """
    if not replies or not said:
        return None
    before = _plain(" ".join([*replies[:-1], _CALL.split(replies[-1], maxsplit=1)[0]]))
    if options:
        chosen = named_option(said, options, question)
        return None if chosen is None else _mentioned(before, options) == {LETTERS[chosen]}
    words = normalise(said)
    return None if not words or _holds(_plain(question), words) else _holds(before, words)


def _plain(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").split())


def _words(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.IGNORECASE)


def _holds(text: str, words: str) -> bool:
    return _words(words).search(text) is not None


def _mentioned(text: str, options: Sequence[str]) -> set[str]:
    """Letters of the options mentioned in `text`."""
    letters = LETTERS[: len(options)]
    found = {
        letter
        for letter in letters
        if re.search(
            rf"\({letter}\)|(?<!\w){letter}[.):](?!\w)"
            rf"|\b(?i:option|choice|answer(?: is)?:?)\s+{letter}\b",
            text,
        )
    }
    texts = {letter: normalise(option) for letter, option in zip(letters, options, strict=True)}
    for letter in sorted(
        letters, key=lambda letter: -len(texts[letter])
    ):  # the longest first: "dark red" is not also "red"
        if texts[letter] and _holds(text, texts[letter]):
            found.add(letter)
            text = _words(texts[letter]).sub("|", text)
    return found
