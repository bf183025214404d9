"""Checks of a samples folder before training: rows, pictures, answers, boxes, duplicates, leaks."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from heapq import heappush, heappushpop
from itertools import count
from pathlib import Path
from random import Random

from lfpc.answers import check_answer, normalise
from lfpc.errors import LfpcError, PictureError, SampleError
from lfpc.images import upright_size
from lfpc.published.importing import short_hash
from lfpc.published.soundness import picture_digest, sound_picture
from lfpc.samples import Sample, scan_samples

LARGEST_BOX = 0.5
"""Share of the picture above which a truth box hardly localises the answer."""
SMALLEST_BOX = 4
"""Minimum pixels of a truth box's shorter side."""
LONGEST_ANSWER = 12
"""Maximum words of a free answer that rules can match."""


class ProblemKind(StrEnum):
    """ProblemKind of a problem with a sample."""

    ROW = "row"
    PICTURE = "picture"
    ANSWER = "answer"
    OPTIONS = "options"
    BOX = "box"
    DUPLICATE = "duplicate"
    CONTRADICTION = "contradiction"
    LEAK = "leak"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with a sample."""

    kind: ProblemKind
    text: str
    fatal: bool = False
    """Whether the sample is unusable."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A row of the samples file with its problems."""

    sample: Sample | None
    """None: the row is not a sample."""
    problems: tuple[Problem, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether the sample has no fatal problem."""
        return not any(problem.fatal for problem in self.problems)

    @property
    def lines(self) -> list[str]:
        """One sentence per problem, with the id of the sample."""
        name = "" if self.sample is None else f"sample {self.sample.id!r}: "
        return [f"{name}{problem.text}" for problem in self.problems]


def check_samples(
    path: Path, leak: Callable[[Path], str | None] | None = None
) -> Iterator[Checked]:
    """Check every row of a samples folder (or `.jsonl` file) with its picture.

    Args:
        path: the folder.
        leak: picture -> the known picture that it copies, in words; None: no comparison.
    Raises:
        SampleError: the file does not exist.
    """
    asked: dict[int, tuple[str, str]] = {}
    trouble = lru_cache(maxsize=4096)(
        _picture_trouble
    )  # a picture with many questions is read once
    for found in scan_samples(path):
        if isinstance(found, SampleError):
            yield Checked(None, (Problem(ProblemKind.ROW, str(found), fatal=True),))
            continue
        if broken := trouble(found.image):
            problems = [Problem(ProblemKind.PICTURE, broken, fatal=True)]
        else:
            problems = [*_box_problems(found), *_repeats(found, asked), *_leaks(found, leak)]
        yield Checked(found, (*problems, *_answer_problems(found)))


def _picture_trouble(picture: Path) -> str:
    """The problem with a picture; empty: none."""
    try:
        sound_picture(picture)
    except LfpcError as error:
        return str(error)
    return ""


def _answer_problems(sample: Sample) -> Iterator[Problem]:
    if not check_answer(sample.answer, sample).correct:
        answer = f"answer {sample.answer!r}"
        options = (
            f"{answer} is neither the letter nor the text of one of its {len(sample.options)} "
            f"options"
        )
        yield Problem(
            ProblemKind.ANSWER,
            options if sample.options else f"{answer} is empty when normalised",
            fatal=True,
        )
    elif not sample.options and len(sample.answer.split()) > LONGEST_ANSWER:
        yield Problem(
            ProblemKind.ANSWER,
            f"an answer of {len(sample.answer.split())} words; rules will rarely match it, "
            f"use a judge",
        )
    twice = [text for text, times in Counter(map(normalise, sample.options)).items() if times > 1]
    if twice:
        yield Problem(ProblemKind.OPTIONS, f"two options are {twice[0]!r}")


def _box_problems(sample: Sample) -> Iterator[Problem]:
    """Sizes only: a Sample already guarantees that boxes are nested and inside the picture."""
    width, height = upright_size(sample.image)
    for number, nested in enumerate(sample.boxes, 1):
        box = nested[0]
        sides = (box.x1 - box.x0) * width, (box.y1 - box.y0) * height
        if sides[0] * sides[1] > LARGEST_BOX * width * height:
            share = sides[0] * sides[1] / (width * height)
            yield Problem(
                ProblemKind.BOX, f"the box of target {number} covers {share:.0%} of the picture"
            )
        if min(sides) < SMALLEST_BOX:
            yield Problem(
                ProblemKind.BOX,
                f"the box of target {number} is {sides[0]:.1f} x {sides[1]:.1f} pixels",
            )


def _repeats(sample: Sample, asked: dict[int, tuple[str, str]]) -> Iterator[Problem]:
    key = question_key(sample)
    place = sample.choice
    answer = normalise(sample.answer if place is None else sample.options[place])
    first, before = asked.setdefault(key, (sample.id, answer))
    if first != sample.id and before == answer:
        yield Problem(
            ProblemKind.DUPLICATE, f"the same question about the same picture as {first!r}"
        )
    elif first != sample.id:
        yield Problem(
            ProblemKind.CONTRADICTION,
            f"the same question about the same picture as {first!r}, with another answer",
        )


def question_key(sample: Sample) -> int:
    """A key of the picture's content, the question and its options in any order."""
    return short_hash(
        "\n".join(
            [
                picture_digest(sample.image),
                normalise(sample.question),
                *sorted(map(normalise, sample.options)),
            ]
        )
    )


def _leaks(sample: Sample, leak: Callable[[Path], str | None] | None) -> Iterator[Problem]:
    try:
        known = leak and leak(sample.image)
    except PictureError as error:
        yield Problem(ProblemKind.PICTURE, str(error), fatal=True)
        return
    if known:
        yield Problem(ProblemKind.LEAK, f"its picture is a copy of {known}")


@dataclass
class CheckSummary:
    """Counts of a check, every row with a problem, and a few samples to look at."""

    kept: int = 12
    """Number of worst samples, and of random samples, to keep."""
    seed: int = 0
    rows: int = 0
    unusable: int = 0
    warned: int = 0
    """Usable samples with a problem."""
    kinds: Counter[str] = field(default_factory=Counter[str])
    sources: Counter[str] = field(default_factory=Counter[str])
    bad: list[tuple[int, str, Problem]] = field(default_factory=list[tuple[int, str, Problem]])
    """(number of the row, id of its sample if it is one, problem)."""
    drawn: list[Checked] = field(default_factory=list[Checked])
    """Drawn at random."""
    _worst: list[tuple[tuple[int, int, int], Checked]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._order = count()

    def add(self, checked: Checked) -> None:
        """Count a row."""
        self.rows += 1
        self.unusable += not checked.usable
        name = "" if checked.sample is None else checked.sample.id
        self.bad += [(self.rows, name, problem) for problem in checked.problems]
        self.kinds.update({problem.kind.value for problem in checked.problems})
        if checked.sample is not None:
            self.sources[checked.sample.source or "no source"] += 1
            self._draw(checked)
            if checked.problems:
                self._rank(checked)

    @property
    def worst(self) -> list[Checked]:
        """Samples with the most problems, fatal ones first."""
        return [
            checked for _, checked in sorted(self._worst, key=lambda pair: pair[0], reverse=True)
        ]

    def _draw(self, checked: Checked) -> None:
        """Keep each sample with equal probability, for any number of samples (reservoir
        sampling).
        """
        total = self.sources.total()
        if len(self.drawn) < self.kept:
            self.drawn.append(checked)
        elif (place := self._random.randrange(total)) < self.kept:
            self.drawn[place] = checked

    def _rank(self, checked: Checked) -> None:
        self.warned += checked.usable
        rank = (
            sum(problem.fatal for problem in checked.problems),
            len(checked.problems),
            -next(self._order),
        )
        if len(self._worst) < self.kept:
            heappush(self._worst, (rank, checked))
        else:
            heappushpop(self._worst, (rank, checked))
