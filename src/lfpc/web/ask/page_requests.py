"""Requests of the demo page, checked: questions about stored pictures, swaps of crops."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lfpc.ask.live import SWAPS, LiveQuestion, led, swapped
from lfpc.boxes import Box
from lfpc.errors import SampleError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.opened import UNLIMITED
from lfpc.samples import Sample
from lfpc.web.ask.asked import Questions
from lfpc.web.ask.uploads import Uploads

LONGEST_QUESTION = 4_000
LONGEST_OPTION = 500
MOST_OPTIONS = 26


@dataclass(frozen=True, slots=True)
class PictureSources:
    """Pictures for questions: examples and uploads."""

    examples: Mapping[str, Sample]
    """Example pictures by id."""
    uploads: Uploads

    def find(self, name: str) -> Path:
        """The file of a picture.

        Raises:
            PictureError: unknown or dropped picture.
        """
        return self.examples[name].image if name in self.examples else self.uploads.find(name)


def read_question(
    request: Mapping[str, Any], pictures: PictureSources, config: EvaluationConfig
) -> LiveQuestion:
    """The question of a page's request.

    Args:
        request: picture, question, options, budget.
        pictures: available pictures.
        config: default configuration.
    Raises:
        PictureError, SampleError: an invalid request.
    """
    name = text_of(request, "picture", 100)
    question = text_of(request, "question", LONGEST_QUESTION).strip()
    options = request.get("options", [])
    budget = request.get("budget", config.budget)
    if not question:
        raise SampleError("type a question")
    if (
        not isinstance(options, list)
        or len(options) > MOST_OPTIONS
        or not all(isinstance(text, str) for text in options)
    ):
        raise SampleError(f"a question has at most {MOST_OPTIONS} options")
    if any(len(text) > LONGEST_OPTION for text in options):
        raise SampleError(f"an option has at most {LONGEST_OPTION} characters")
    if isinstance(budget, bool) or not isinstance(budget, int) or not 1 <= budget <= UNLIMITED:
        raise SampleError(
            f"the first view must have a whole number of visual tokens from 1 to {UNLIMITED:,}"
        )
    example = pictures.examples.get(name)
    boxes = (
        example.boxes if example is not None and example.question == question else ()
    )  # of this question, not of another one
    sample = Sample(
        id=name,
        image=pictures.find(name),
        question=question,
        answer="not known",
        options=tuple(options),
        boxes=boxes,
    )
    return LiveQuestion(sample=sample, config=replace(config, budget=budget))


def text_of(request: Mapping[str, Any], name: str, longest: int) -> str:
    """A text field of a request.

    Raises:
        SampleError: not a text, or too long.
    """
    value = request.get(name)
    if not isinstance(value, str) or len(value) > longest:
        raise SampleError(f"{name} must be a text of at most {longest:,} characters")
    return value


def read_swap(request: Mapping[str, Any], questions: Questions) -> LiveQuestion:
    """The question to play again: with a replacement for a call, or (call 0) beginning with a call
    for a box.

    Raises:
        PictureError, RunError, SampleError, BoxError: an invalid request.
    """
    played = questions.find(text_of(request, "id", 100))
    call = request.get("call")
    what = request.get("shown")
    if played is None:
        raise SampleError("the question is no longer stored; ask it again")
    if (
        isinstance(what, list)
        and len(what) == 4
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in what)
    ):
        what = Box(*map(float, what))
    if not isinstance(what, Box) and what not in SWAPS:
        raise SampleError(
            f"a crop can be swapped for {', '.join(SWAPS)} or a box of four fractions"
        )
    if isinstance(call, bool) or not isinstance(call, int):
        raise SampleError("call must be the number of a crop")
    if call == 0 and isinstance(what, Box):
        return led(played.asked, what)
    return swapped(played.asked, played.turns, call, what)
