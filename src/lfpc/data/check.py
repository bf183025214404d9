"""Is a samples folder fit to be played and learnt from: rows, pictures, answers, boxes, duplicates,
leaks.
"""

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
from lfpc.errors import LfpcError, SampleError
from lfpc.images import upright_size
from lfpc.published.importing import short_hash
from lfpc.published.soundness import picture_digest, sound_picture
from lfpc.samples import Sample, scan_samples

LARGEST_BOX = 0.5
"""Share of the picture above which a truth box says little about where to look."""
SMALLEST_BOX = 4
"""Pixels of a truth box's shorter side."""
LONGEST_ANSWER = 12
"""Words of a free answer that a rule can hope to match."""


class Kind(StrEnum):
    """What is wrong with a sample."""

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
    """One thing that is wrong."""

    kind: Kind
    text: str
    fatal: bool = False
    """Whether the sample cannot be played."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A row and what is wrong with it."""

    sample: Sample | None
    """None: the row is none."""
    problems: tuple[Problem, ...] = ()

    @property
    def playable(self) -> bool:
        """Whether it can be played."""
        return not any(problem.fatal for problem in self.problems)

    @property
    def lines(self) -> list[str]:
        """A sentence per problem, which names the sample."""
        name = "" if self.sample is None else f"sample {self.sample.id!r}: "
        return [f"{name}{problem.text}" for problem in self.problems]


def check_samples(
    path: Path, leak: Callable[[Path], str | None] | None = None
) -> Iterator[Checked]:
    """Look at every row of a samples folder (or `.jsonl` file), and at its picture.

    Args:
        path: the folder.
        leak: picture -> what known picture it is a copy of, in words; None: there is nothing to
            compare with.
    Raises:
        SampleError: there is no such file.
    """
    asked: dict[int, tuple[str, str]] = {}
    trouble = lru_cache(maxsize=4096)(
        _picture_trouble
    )  # a picture with many questions is read once
    for found in scan_samples(path):
        if isinstance(found, SampleError):
            yield Checked(None, (Problem(Kind.ROW, str(found), fatal=True),))
            continue
        if broken := trouble(found.image):
            problems = [Problem(Kind.PICTURE, broken, fatal=True)]
        else:
            problems = [*_box_problems(found), *_repeats(found, asked), *_leaks(found, leak)]
        yield Checked(found, (*problems, *_answer_problems(found)))


def _picture_trouble(picture: Path) -> str:
    """What is wrong with a picture; empty: nothing."""
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
            Kind.ANSWER,
            options if sample.options else f"{answer} says nothing, so no reply can be right",
            fatal=True,
        )
    elif not sample.options and len(sample.answer.split()) > LONGEST_ANSWER:
        yield Problem(
            Kind.ANSWER,
            f"an answer of {len(sample.answer.split())} words; rules will hardly match it, "
            f"a judge may",
        )
    twice = [text for text, times in Counter(map(normalise, sample.options)).items() if times > 1]
    if twice:
        yield Problem(Kind.OPTIONS, f"two options say {twice[0]!r}")


def _box_problems(sample: Sample) -> Iterator[Problem]:
    """That boxes lie inside the picture and in each other is part of being a Sample."""
    width, height = upright_size(sample.image)
    for number, nested in enumerate(sample.boxes, 1):
        box = nested[0]
        sides = (box.x1 - box.x0) * width, (box.y1 - box.y0) * height
        if sides[0] * sides[1] > LARGEST_BOX * width * height:
            share = sides[0] * sides[1] / (width * height)
            yield Problem(Kind.BOX, f"the box of target {number} covers {share:.0%} of the picture")
        if min(sides) < SMALLEST_BOX:
            yield Problem(
                Kind.BOX, f"the box of target {number} is {sides[0]:.1f} x {sides[1]:.1f} pixels"
            )


def _repeats(sample: Sample, asked: dict[int, tuple[str, str]]) -> Iterator[Problem]:
    key = question_key(sample)
    answer = normalise(sample.answer)
    first, before = asked.setdefault(key, (sample.id, answer))
    if first != sample.id and before == answer:
        yield Problem(Kind.DUPLICATE, f"the same question about the same picture as {first!r}")
    elif first != sample.id:
        yield Problem(
            Kind.CONTRADICTION,
            f"the same question about the same picture as {first!r}, with another answer",
        )


def question_key(sample: Sample) -> int:
    """Names the content of the picture file and the question. Options count, whatever their
    order.
    """
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
    if leak and (known := leak(sample.image)):
        yield Problem(Kind.LEAK, f"its picture looks like {known}")


@dataclass
class CheckSummary:
    """What a check found, sample by sample; a few samples are kept to be looked at."""

    kept: int = 12
    """Samples of each kind that are kept."""
    seed: int = 0
    rows: int = 0
    unplayable: int = 0
    notes: int = 0
    """Samples that can be played, and of which there is something to say."""
    kinds: Counter[str] = field(default_factory=Counter[str])
    sources: Counter[str] = field(default_factory=Counter[str])
    drawn: list[Checked] = field(default_factory=list[Checked])
    """Drawn at random."""
    _worst: list[tuple[tuple[int, int, int], Checked]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._order = count()

    def add(self, checked: Checked) -> None:
        """Count a row."""
        self.rows += 1
        self.unplayable += not checked.playable
        self.kinds.update({problem.kind.value for problem in checked.problems})
        if checked.sample is not None:
            self.sources[checked.sample.source or "no source"] += 1
            self._draw(checked)
            if checked.problems:
                self._rank(checked)

    @property
    def worst(self) -> list[Checked]:
        """Samples with the most and worst problems, the worst first."""
        return [
            checked for _, checked in sorted(self._worst, key=lambda pair: pair[0], reverse=True)
        ]

    def _draw(self, checked: Checked) -> None:
        """Each sample is kept with the same probability, without knowing how many there will be."""
        total = self.sources.total()
        if len(self.drawn) < self.kept:
            self.drawn.append(checked)
        elif (place := self._random.randrange(total)) < self.kept:
            self.drawn[place] = checked

    def _rank(self, checked: Checked) -> None:
        self.notes += checked.playable
        rank = (
            sum(problem.fatal for problem in checked.problems),
            len(checked.problems),
            -next(self._order),
        )
        if len(self._worst) < self.kept:
            heappush(self._worst, (rank, checked))
        else:
            heappushpop(self._worst, (rank, checked))
