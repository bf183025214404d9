"""Whether rollouts fit into `max_rollout_tokens`, before anything is sampled."""

from collections.abc import Sequence
from typing import Literal

from lfpc.errors import ConfigError
from lfpc.training.config import TrainConfig


def check_room(
    first_view: int, crop: Literal["min_tokens", "max_tokens"], config: TrainConfig
) -> None:
    """Check that a first view leaves room for a reply and, if the run has several turns, a crop.

    Args:
        first_view: visual tokens of the first view.
        crop: the field of `config.crop` with the visual tokens of the crop.
        config: the run.
    Raises:
        ConfigError: it does not.
    """
    most = config.max_rollout_tokens
    view = f"a first view of {first_view} visual tokens and a reply of {config.max_new_tokens}"
    if first_view + config.max_new_tokens > most:
        raise ConfigError(f"{view} do not fit into --max-rollout-tokens {most}")
    size: int = getattr(config.crop, crop)
    needed = first_view + size + config.max_new_tokens
    if config.max_turns > 1 and needed > most:
        raise ConfigError(
            f"{view} leave no room for a crop of {size} in --max-rollout-tokens {most}; raise it "
            f"to more than {needed}, or lower --crop.{crop.replace('_', '-')}"
        )


def check_lengths(tokens: Sequence[int], config: TrainConfig) -> str:
    """A warning about first views that leave no room for a reply in `max_rollout_tokens`; empty if
    all leave some.

    Args:
        tokens: visual tokens of the first view of every sample.
        config: the run.
    Raises:
        ConfigError: no first view leaves room for a reply and the smallest crop, so nothing would
            be trained.
    """
    room = config.max_rollout_tokens - config.max_new_tokens
    long = [count for count in tokens if count > room]
    if tokens and len(long) < len(tokens):
        check_room(min(tokens), "min_tokens", config)
    if not long:
        return ""
    option = {"original": "--original-budget", "fixed": "--fixed-budget"}.get(
        config.first_view, "the budgets of the samples"
    )
    text = (
        f"{len(long)} of {len(tokens)} first views have up to {max(long)} visual tokens, which do "
        f"not fit into --max-rollout-tokens {config.max_rollout_tokens} with a reply of "
        f"{config.max_new_tokens}; lower {option} to {max(1, room // 2)} or raise "
        f"--max-rollout-tokens to {2 * max(long)}"
    )
    if len(long) == len(tokens):
        raise ConfigError(f"nothing could be trained: {text}")
    return f"{text}; their rollouts are counted as overlong and not trained on"
