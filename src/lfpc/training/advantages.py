"""Rewards of a rollout group to advantages."""

from collections.abc import Sequence
from statistics import fmean, pstdev

EPSILON = 1e-6
"""Keeps the division finite; far smaller than any spread of rewards."""


def group_advantages(rewards: Sequence[float], *, epsilon: float = EPSILON) -> list[float]:
    """Advantages of the rollouts of one question: rewards relative to the group.

        A_i = (r_i - mean(r)) / (std(r) + epsilon)

    Args:
        rewards: total rewards of the rollouts of one question.
        epsilon: added to the standard deviation.
    Returns:
        One advantage per rollout, mean 0; all exactly 0 when the rewards are equal.
    Source: GRPO (arXiv 2402.03300), with the population standard deviation; LFPC has no further
    terms.
    """
    if max(rewards) - min(rewards) < epsilon:
        return [0.0] * len(rewards)
    mean = fmean(rewards)
    spread = pstdev(rewards)
    return [(reward - mean) / (spread + epsilon) for reward in rewards]
