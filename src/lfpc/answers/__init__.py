"""Verdicts on answers by rules (`evaluation.judge` decides where no rule matches), and whether an
answer was given before the first crop.

`marks` finds what a reply marks as its answer, `statements` the words around an answer, `options`
and `free` what it names, `wording` when two texts are the same, and `early` answers before a crop.
Training, selection and evaluation use the same rules. A wrong reply scored right is the worse
fault, because a policy learns it: what leaves a doubt is not read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lfpc.answers.early import answered_before_crop
from lfpc.answers.free import free_answer
from lfpc.answers.options import named_option
from lfpc.answers.wording import normalise, number, plain, text_key
from lfpc.samples import LETTERS, Sample

__all__ = ["Method", "Verdict", "answer_key", "answered_before_crop", "check_answer", "normalise"]

Method = Literal["option", "text", "number", "unparsed", "judge"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the answer is right, and the rule that decided. `unparsed` counts as wrong and stays
    in the denominator.
    """

    correct: bool
    method: Method


def check_answer(said: str | None, sample: Sample) -> Verdict:
    """The verdict on an answer to the sample's question.

    With options: the option that the answer names (`options.named_option`), which is right if it is
    the sample's. Without: the same text after `wording.text_key`, or the same number, without the
    words around it (`free.free_answer`). Anything else is wrong.
    """
    said = said or ""
    if sample.options:
        chosen = named_option(said, sample.options, sample.question)
        if chosen is None:
            return Verdict(False, "unparsed")
        return Verdict(chosen == sample.choice, "option")
    if (sign := plain(said)) and sign == plain(sample.answer) and not re.search(r"\w", sign):
        return Verdict(True, "text")
    spoken = free_answer(said, sample.question)
    if not normalise(said) or not normalise(spoken):
        return Verdict(False, "unparsed")
    if normalise(sample.answer) in (normalise(said), normalise(spoken)):
        return Verdict(True, "text")
    key = text_key(spoken)
    reference = text_key(free_answer(sample.answer, sample.question))
    numbers = number(key) and number(reference)
    return Verdict(key == reference, "number" if numbers else "text")


def answer_key(said: str, options: Sequence[str] = (), question: str = "") -> str:
    """Key of an answer, equal for equivalent answers by the rules of `check_answer`: the letter of
    its option, else the key of its text.
    """
    chosen = named_option(said, options, question) if options else None
    return LETTERS[chosen] if chosen is not None else text_key(free_answer(said, question) or said)
