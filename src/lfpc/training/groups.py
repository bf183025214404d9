"""Rollout groups: the episodes of one sample in one step, whose rewards are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, pstdev
from typing import Literal

from lfpc.episode import Episode
from lfpc.rewards import RewardTerms
from lfpc.samples import Sample

EPSILON = 1e-6
"""Keeps the division finite; far smaller than any spread of rewards."""


AdvantageScale = Literal["deviation", "none"]
"""Whether advantages are divided by the deviation of their group."""


def group_advantages(
    rewards: Sequence[float], *, epsilon: float = EPSILON, scale: AdvantageScale = "deviation"
) -> list[float]:
    """Advantages of the rollouts of one question: rewards relative to the group.

        A_i = (r_i - mean(r)) / (std(r) + epsilon)      scale="deviation"
        A_i = r_i - mean(r)                             scale="none"

    Args:
        rewards: total rewards of the rollouts of one question.
        epsilon: added to the standard deviation.
        scale: whether to divide. Division gives a group whose rewards hardly differ, by a
            box a little better, the same weight as one with right and wrong answers.
    Returns:
        One advantage per rollout, mean 0; all exactly 0 when the rewards are equal.
    Source: GRPO (arXiv 2402.03300), with the population standard deviation; LFPC has no further
    terms. scale="none": Dr. GRPO (arXiv 2503.20783).
    """
    if max(rewards) - min(rewards) < epsilon:
        return [0.0] * len(rewards)
    mean = fmean(rewards)
    divisor = pstdev(rewards) + epsilon if scale == "deviation" else 1.0
    return [(reward - mean) / divisor for reward in rewards]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The episodes of one sample in one step, with their rewards and advantages.

    episodes     crop, right   right   wrong
    reward       1.5           1.0     0.0       terms.total; mean 0.83, deviation 0.62
    advantage    1.07          0.27    -1.34
    """

    sample: Sample
    episodes: tuple[Episode, ...]
    terms: tuple[RewardTerms, ...]
    advantages: tuple[float, ...]

    @property
    def has_signal(self) -> bool:
        """Whether the rewards differ, so that the group has a gradient."""
        return any(self.advantages)


def group_of(
    episodes: Sequence[Episode],
    terms: Sequence[RewardTerms],
    scale: AdvantageScale = "deviation",
) -> Group:
    """The group of one sample's episodes.

    Args:
        episodes: at least one, all of the same sample.
        terms: their rewards, in the same order.
        scale: of their advantages.
    """
    return Group(
        sample=episodes[0].sample,
        episodes=tuple(episodes),
        terms=tuple(terms),
        advantages=tuple(group_advantages([term.total for term in terms], scale=scale)),
    )


def groups_of(
    episodes: Sequence[Episode],
    terms: Sequence[RewardTerms],
    *,
    size: int,
    scale: AdvantageScale = "deviation",
) -> list[Group]:
    """The groups of a step's episodes, which come sample by sample, `size` of each."""
    return [
        group_of(episodes[start : start + size], terms[start : start + size], scale)
        for start in range(0, len(episodes), size)
    ]


def episodes_of(groups: Sequence[Group]) -> list[Episode]:
    """The episodes of all groups, in order."""
    return list(chain.from_iterable(group.episodes for group in groups))


def terms_of(groups: Sequence[Group]) -> list[RewardTerms]:
    """The rewards of all groups, in the order of `episodes_of`."""
    return list(chain.from_iterable(group.terms for group in groups))


def advantages_of(groups: Sequence[Group]) -> list[float]:
    """The advantages of all groups, in the order of `episodes_of`."""
    return list(chain.from_iterable(group.advantages for group in groups))


def places_to_log(groups: Sequence[Group], count: int) -> list[tuple[int, int]]:
    """(group, episode) numbers of `count` episodes: the first one of every group, then the second
    ones, and so on; sorted by group.
    """
    places = [
        (episode, group)
        for group, played in enumerate(groups)
        for episode in range(len(played.episodes))
    ]
    return sorted((group, episode) for episode, group in sorted(places)[:count])
