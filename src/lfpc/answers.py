"""Verdicts on answers by rules (`evaluation.judge` decides where no rule matches), and whether an
answer was given before the first crop.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lfpc.samples import Sample

Method = Literal["option", "text", "number", "unparsed"]
_BOXED = re.compile(r"\\boxed\{(?:\\[a-z]+\{)?([^{}]*)\}")  # also \boxed{\text{B}}
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_ANNOUNCED = re.compile(
    r"(?:the\s+)?(?:(?:correct|right|final|best)\s+)?(?:answer|option|choice)(?:\s+is|\s*:)(?:\s*:)?\s+",
    re.IGNORECASE,
)
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:)]?(?:\s.*)?", re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the answer is right, and the rule that decided. `unparsed` counts as wrong and stays
    in the denominator.
    """

    correct: bool
    method: Method


def normalise(text: str) -> str:
    """Lower case, one space between words, no article in front, no closing full stop or quotes."""
    words = text.casefold().replace("\u2019", "'").split()
    if len(words) > 1 and words[0] in ("a", "an", "the"):
        words = words[1:]
    return " ".join(words).strip(" .!\"'`*")


def stated_answer(text: str) -> str:
    r"""The marked answer in a longer text: the last `<answer>` or `\boxed{}`, or the text after an
    initial "the answer is".
    """
    for mark in (_TAGGED, _BOXED):
        if found := mark.findall(text):
            text = str(found[-1])
    text = text.strip().strip("*").strip()
    announced = _ANNOUNCED.match(text)
    return (text[announced.end() :] if announced else text).strip().strip("*").strip()


def check_answer(said: str | None, sample: Sample) -> Verdict:
    """The verdict on an answer to the sample's question.

    Marks around the answer are removed first (`stated_answer`). With options: a letter, a letter
    with its text, or the exact text of one option. Without: the same text after `normalise`, or the
    same number. Anything else is wrong.
    """
    said = stated_answer(said or "")
    if not said:
        return Verdict(False, "unparsed")
    if sample.options:
        return _check_option(said, sample)
    if normalise(said) == normalise(sample.answer):
        return Verdict(True, "text")
    numbers = _NUMBER.fullmatch(said.strip(" .")), _NUMBER.fullmatch(sample.answer.strip(" ."))
    if all(numbers):
        a, b = (float(match.group().replace(",", "")) for match in numbers if match)
        return Verdict(a == b, "number")
    return Verdict(False, "text")


def _check_option(said: str, sample: Sample) -> Verdict:
    chosen = _chosen_option(said, sample.options)
    if chosen is None:
        return Verdict(False, "unparsed")
    return Verdict(
        chosen in (sample.answer.strip().upper(), _chosen_option(sample.answer, sample.options)),
        "option",
    )


def _chosen_option(said: str, options: Sequence[str]) -> str | None:
    """The letter of the option in `said`: a letter, a letter with its text, or the exact text."""
    letters = [chr(65 + i) for i in range(len(options))]
    by_text = {normalise(text): letter for letter, text in zip(letters, options, strict=True)}
    chosen = by_text.get(normalise(said))
    if chosen is None and (match := _LETTER.fullmatch(said)) and match.group(1).upper() in letters:
        rest = normalise(said[match.end(1) :].lstrip(").: "))
        if not rest or by_text.get(rest) == match.group(1).upper():
            chosen = match.group(1).upper()
    return chosen


def answer_key(said: str, options: Sequence[str] = ()) -> str:
    """Key of an answer, equal for equivalent answers: its option, else its normalised text."""
    return (_chosen_option(stated_answer(said), options) if options else None) or normalise(said)


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
        chosen = _chosen(said, options)
        return None if chosen is None else _mentioned(before, options) == {chosen}
    words = normalise(said)
    return None if not words or _holds(_plain(question), words) else _holds(before, words)


def _plain(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").split())


def _words(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.IGNORECASE)


def _holds(text: str, words: str) -> bool:
    return _words(words).search(text) is not None


def _chosen(said: str, options: Sequence[str]) -> str | None:
    """The letter of the option in `said`, by the rules of `check_answer`."""
    letters = (chr(65 + number) for number in range(len(options)))
    asked = (
        Sample(id="?", image=Path(), question="?", answer=letter, options=tuple(options))
        for letter in letters
    )
    return next((sample.answer for sample in asked if check_answer(said, sample).correct), None)


def _mentioned(text: str, options: Sequence[str]) -> set[str]:
    """Letters of the options mentioned in `text`."""
    letters = [chr(65 + number) for number in range(len(options))]
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
