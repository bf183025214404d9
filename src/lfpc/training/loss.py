"""The loss as functions of log-probabilities, without KL term or entropy bonus, as in the paper."""

import numpy as np
import torch
from torch import Tensor

from lfpc.training.config import Aggregation

LARGEST_GAP = 20.0
"""Largest difference of two log-probabilities of a token that enters the loss."""


def token_weights(lengths: np.ndarray, aggregation: Aggregation) -> np.ndarray:
    """Weight of one token of each rollout; the weights of all tokens of a step add up to 1.

        token-mean:     1 / (tokens of all rollouts)
        sequence-mean:  1 / (rollouts * tokens of this rollout)

    Args:
        lengths: (rollouts,) policy tokens; rollouts with 0 count as absent.
    Returns:
        (rollouts,) float64 weights.
    """
    present = np.maximum(lengths, 1)
    if aggregation == "token-mean":
        return np.full(len(lengths), 1 / max(1, int(lengths.sum())))
    return np.where(lengths > 0, 1 / (max(1, int((lengths > 0).sum())) * present), 0.0)


def clipped_loss(
    logprobs: Tensor, sampled: Tensor, advantages: Tensor, weights: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate loss.

        ratio = exp(log pi - log pi_sampled), the difference bounded to [-20, 20]
        L = - sum_t weight_t * min(ratio_t * A_t, clip(ratio_t, 1 - c, 1 + c) * A_t)

    Args:
        logprobs, sampled: (tokens,) log-probabilities now (with gradient) and when sampled.
        advantages, weights: (tokens,).
        clip: c.
    Returns:
        The loss, and (tokens,) bool: True where clipping removes the gradient.
    Source: PPO (arXiv 1707.06347), GRPO (arXiv 2402.03300).
    """
    # exp overflows to inf, and inf * 0 to NaN, which would lose the whole step
    ratio = (logprobs - sampled).clamp(-LARGEST_GAP, LARGEST_GAP).exp()
    free = ratio * advantages
    bounded = ratio.clamp(1 - clip, 1 + clip) * advantages
    return -(weights * torch.minimum(free, bounded)).sum(), bounded < free
