"""Verdicts on answers by rules. `evaluation.judge` decides where no rule matches."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
