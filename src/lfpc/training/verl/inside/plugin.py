"""Registration of our loop, engine, advantages and pixels in each verl process, through
`model.external_lib`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est

from lfpc.training.groups import AdvantageScale, group_advantages
from lfpc.training.verl.inside import engine, loop  # noqa: F401  (register themselves)
from lfpc.training.verl.inside.pixels import accept_bytes
from lfpc.training.verl.translate import NAME


def advantages(
    token_level_rewards: Tensor,
    response_mask: Tensor,
    index: np.ndarray,
    config: Any = None,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """The local engine's advantages, in verl's shape.

    Args:
        token_level_rewards: (rollouts, tokens), each rollout's reward on one of its tokens.
        response_mask: (rollouts, tokens), 1 at trained tokens.
        index: (rollouts,) names of the questions.
        config: verl's settings of the algorithm; None: its defaults.
    Returns:
        Twice the same (rollouts, tokens) float32: the rollout's advantage at its trained tokens, 0
        elsewhere.
    """
    rewards = token_level_rewards.sum(-1).double().tolist()
    divided = config is None or config.norm_adv_by_std_in_grpo
    scale: AdvantageScale = "deviation" if divided else "none"
    found = np.zeros(len(rewards))
    for name in set(index.tolist()):
        rows = np.flatnonzero(index == name)
        found[rows] = group_advantages([rewards[row] for row in rows], scale=scale)
    spread = (
        torch.from_numpy(found).to(response_mask.device, torch.float32)[:, None] * response_mask
    )
    return spread, spread


if NAME not in ADV_ESTIMATOR_REGISTRY:
    register_adv_est(NAME)(advantages)
accept_bytes()
