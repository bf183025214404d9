"""The search for one sample's level on the ladder: the first level at which its answer changes.

A search is an Item of `lfpc.playing.driver`, a generator without a model call. The function that
asks a level's question is an argument.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from json import dumps

from lfpc.answers import answer_key, check_answer
from lfpc.boxes import Size
from lfpc.images import LEAST_TOKENS, shown_size, upright_size, visual_tokens
from lfpc.playing.driver import Item
from lfpc.protocols import ChatProtocol
from lfpc.published.soundness import picture_digest
from lfpc.samples import Sample
from lfpc.selection.config import SelectConfig


@dataclass(frozen=True, slots=True)
class LevelQuestion:
    """A sample's question at one level of the ladder."""

    sample: Sample
    level: int
    """Number of the level, 0 for the original."""
    budget: int
    """Visual tokens."""
    key: str
    """Key of the picture, its shown size and the text. Equal keys have equal answers."""


@dataclass(frozen=True, slots=True)
class Step:
    """The answer at one level."""

    level: int
    said: str
    changed: bool
    """Whether the answer differs from the one at the original."""
    right: bool


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answers of one sample, level by level."""

    sample: Sample
    steps: tuple[Step, ...]
    """Searched levels, the original first."""
    budgets: tuple[int, ...]
    """Visual tokens of every level for this picture."""
    tokens: tuple[int, ...] = ()
    """Visual tokens of the picture as shown at every level, at most the budget."""
    sizes: int = 0
    """Number of sizes in which the picture is shown."""

    @property
    def changed_at(self) -> int | None:
        """The first level with a different answer from the original's; None: no level."""
        return next((step.level for step in self.steps if step.changed), None)

    def right_at(self, level: int) -> bool:
        """Whether the answer is right at `level`, or at the last level above it that was asked."""
        return self.steps[min(level, len(self.steps) - 1)].right


AskLevel = Callable[[LevelQuestion], Item[Sequence[str]]]
"""Asks a question and returns the answers (a text per vote)."""


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """Functions that compare answers. They may be called from several threads."""

    same: Callable[[Sample, str, str], bool]
    """(sample, answer at the original, answer) -> whether the two agree."""
    right: Callable[[Sample, str], bool]
    """(sample, answer) -> whether it is the reference answer."""


RULES = AnswerRules(
    same=lambda sample, first, said: (
        answer_key(said, sample.options, sample.question)
        == answer_key(first, sample.options, sample.question)
    ),
    right=lambda sample, said: check_answer(said, sample).correct,
)
"""Rules without a judge: the same option or the same text."""


def search(
    sample: Sample,
    budgets_of: Callable[[Size], Sequence[int]],
    protocol: ChatProtocol,
    rules: AnswerRules,
    ask: AskLevel,
    *,
    stop_early: bool = True,
) -> Item[SearchResult]:
    """Search the ladder for one sample, from the original downwards.

    A level at which the picture has the size of the level above is not asked: its pixels are the
    same.

    Args:
        sample: the sample.
        budgets_of: size of the original in pixels -> visual tokens of each level, from the
            original's downwards.
        protocol: the model family's protocol.
        rules: comparison of answers.
        ask: function that asks a level's question.
        stop_early: whether to skip the levels below the first change.
    Raises:
        PictureError: the picture is not usable.
    """
    original = upright_size(sample.image)
    budgets = tuple(budgets_of(original))
    sizes = [shown_size(original, max_tokens=budget, factor=protocol.factor) for budget in budgets]
    steps: list[Step] = []
    for level, (budget, size) in enumerate(zip(budgets, sizes, strict=True)):
        if level and size == sizes[level - 1]:
            steps.append(Step(level, steps[-1].said, steps[-1].changed, steps[-1].right))
            continue
        question = LevelQuestion(sample, level, budget, _key(sample, size, protocol))
        said = majority((yield from ask(question)), sample.options, sample.question)
        changed = bool(steps) and not rules.same(sample, steps[0].said, said)
        steps.append(Step(level, said, changed, rules.right(sample, said)))
        if changed and stop_early:
            break
    tokens = tuple(visual_tokens(size, protocol.factor) for size in sizes)
    return SearchResult(sample, tuple(steps), budgets, tokens, len(set(sizes)))


def majority(said: Sequence[str], options: Sequence[str] = (), question: str = "") -> str:
    """The most frequent answer, the first of ties."""
    keys = [answer_key(text, options, question) for text in said]
    counts = Counter(keys)
    most = max(counts, key=lambda key: counts[key])
    return said[keys.index(most)]


def level_budgets(config: SelectConfig, factor: int) -> Callable[[Size], Sequence[int]]:
    """A function from the size of an original in pixels to the visual tokens of its levels."""
    if config.ratios:
        return ladder_of_ratios(config.ratios, config.ladder[0], factor)
    return lambda original: config.ladder


def ladder_of_ratios(
    ratios: Sequence[float], most: int, factor: int
) -> Callable[[Size], tuple[int, ...]]:
    """A function from the size of an original to the budgets of its levels, as shares of its visual
    tokens; at least one token each, or `LEAST_TOKENS`.

    Args:
        ratios: falling shares of the original's visual tokens.
        most: maximum visual tokens of the original.
        factor: side of a visual token in pixels.
    """

    def budgets(original: Size) -> tuple[int, ...]:
        whole = visual_tokens(shown_size(original, max_tokens=most, factor=factor), factor)
        least = LEAST_TOKENS.get(factor, 1)
        return tuple(max(least, round(ratio * whole)) for ratio in ratios)

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
