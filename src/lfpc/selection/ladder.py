"""The search for one sample's level on the ladder: what is asked next, and where its answer
changed.

A search is an Item of `lfpc.playing.driver`, a generator without a model call: how a level's
question is put, and what is known already, is passed in.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from json import dumps

from lfpc.answers import answer_key, check_answer
from lfpc.boxes import Size
from lfpc.images import smart_resize, upright_size, visual_tokens
from lfpc.playing.driver import Item
from lfpc.protocols import ChatProtocol
from lfpc.published.soundness import picture_digest
from lfpc.samples import Sample


@dataclass(frozen=True, slots=True)
class LevelQuestion:
    """A sample's question at one level of the ladder."""

    sample: Sample
    level: int
    """Place in the ladder, 0 the original."""
    budget: int
    """Visual tokens."""
    key: str
    """Names what is asked: picture, size at which it is shown, text. Equal keys have equal
    answers."""


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one level."""

    level: int
    said: str
    changed: bool
    """Whether it is another answer than the one at the original."""
    right: bool


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A sample's way down."""

    sample: Sample
    steps: tuple[Step, ...]
    """Levels that were looked at, the original first."""
    budgets: tuple[int, ...]
    """Visual tokens of every level for this picture."""

    @property
    def changed_at(self) -> int | None:
        """The first level at which the answer differs from the one at the original; None: it never
        does.
        """
        return next((step.level for step in self.steps if step.changed), None)


Ask = Callable[[LevelQuestion], Item[Sequence[str]]]
"""Puts a question: plays it and returns the answers (a text per vote)."""


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """How answers are compared. Both get the sample first and what was said last; they may be
    called from several threads.
    """

    same: Callable[[Sample, str, str], bool]
    """(sample, answer at the original, what was said) -> whether they say the same."""
    right: Callable[[Sample, str], bool]
    """(sample, what was said) -> whether it is the reference answer."""


RULES = AnswerRules(
    same=lambda sample, first, said: (
        answer_key(said, sample.options) == answer_key(first, sample.options)
    ),
    right=lambda sample, said: check_answer(said, sample).correct,
)
"""By rule alone: the same option or the same text."""


def search(
    sample: Sample,
    budgets_of: Callable[[Size], Sequence[int]],
    protocol: ChatProtocol,
    rules: AnswerRules,
    ask: Ask,
    *,
    stop_early: bool = True,
) -> Item[SearchResult]:
    """Go down the ladder with one sample.

    A level at which the picture has the same size as one level up shows the same pixels, and is not
    asked again.

    Args:
        sample: what is asked about.
        budgets_of: size of the original in pixels -> visual tokens of each level, from the
            original's downwards.
        protocol: how the question is put, and the size of a token.
        rules: when answers are the same.
        ask: how a level's question is answered.
        stop_early: whether levels below the first change are left out.
    Raises:
        PictureError: the picture is not usable.
    """
    original = upright_size(sample.image)
    budgets = tuple(budgets_of(original))
    steps: list[Step] = []
    shown: Size | None = None
    for level, budget in enumerate(budgets):
        size = smart_resize(original, min_tokens=1, max_tokens=budget, factor=protocol.factor)
        if size == shown:
            steps.append(Step(level, steps[-1].said, steps[-1].changed, steps[-1].right))
            continue
        shown = size
        question = LevelQuestion(sample, level, budget, _key(sample, size, protocol))
        said = majority((yield from ask(question)), sample.options)
        changed = bool(steps) and not rules.same(sample, steps[0].said, said)
        steps.append(Step(level, said, changed, rules.right(sample, said)))
        if changed and stop_early:
            break
    return SearchResult(sample, tuple(steps), budgets)


def majority(said: Sequence[str], options: Sequence[str] = ()) -> str:
    """The answer given most often; of several given equally often, the one given first."""
    counts = Counter(answer_key(text, options) for text in said)
    most = max(counts, key=lambda key: counts[key])
    return next(text for text in said if answer_key(text, options) == most)


def ladder_of_ratios(
    ratios: Sequence[float], most: int, factor: int
) -> Callable[[Size], tuple[int, ...]]:
    """Levels as shares of what the original costs, for each picture of its own; at least one token
    each.

    Args:
        ratios: shares of the original's visual tokens, falling.
        most: visual tokens that the original may cost at the most.
        factor: side of a visual token in pixels.
    """

    def budgets(original: Size) -> tuple[int, ...]:
        whole = visual_tokens(
            smart_resize(original, min_tokens=1, max_tokens=most, factor=factor), factor
        )
        return tuple(max(1, round(ratio * whole)) for ratio in ratios)

    return budgets


def _key(sample: Sample, size: Size, protocol: ChatProtocol) -> str:
    asked = [
        picture_digest(sample.image),
        *size,
        protocol.name,
        protocol.direct_system,
        protocol.ask(sample.question, sample.options),
    ]
    return sha256(dumps(asked).encode()).hexdigest()[:32]
