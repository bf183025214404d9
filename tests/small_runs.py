"""Configuration and reward of training runs that take a second: a random model, four steps."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from lfpc.episode import Episode
from lfpc.images import CropRules
from lfpc.rewards import RewardTerms
from lfpc.training.config import TrainConfig


def config(base: Path, out: Path, **changes) -> TrainConfig:
    small = TrainConfig(
        data=base / "data",
        init=base / "init",
        out=out,
        prompts_per_step=2,
        group_size=3,
        steps=4,
        save_every=2,
        max_turns=2,
        max_new_tokens=5,
        learning_rate=1e-3,
        device="cpu",
        crop=CropRules(min_tokens=4, max_tokens=16),
    )
    return replace(small, **changes)


def early_tokens(episode: Episode) -> RewardTerms:
    """A reward that differs between rollouts of a random model: low token ids are good."""
    ids = episode.turns[0].reply.token_ids
    return RewardTerms(accuracy=float(np.mean([i < 400 for i in ids])))
