"""Metrics of episodes and groups. A quantity that does not exist is None."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from statistics import fmean, median, pstdev
from typing import Any

from lfpc.boxes import Box, target_iou
from lfpc.episode import Episode
from lfpc.rewards import RewardTerms
from lfpc.training.groups import Group, episodes_of

Numbers = dict[str, float | None]


def mean(values: Iterable[float]) -> float | None:
    """Mean of the values; None without values, or if it is not finite."""
    found = list(values)
    average = fmean(found) if found else math.nan
    return average if math.isfinite(average) else None


def episode_numbers(episodes: Sequence[Episode], terms: Sequence[RewardTerms]) -> Numbers:
    """Metrics of episodes: rewards term by term, answers, turns, crops.

    `accuracy`, `tool_rate` (a crop was shown), `malformed` and `unanswered` are shares of episodes;
    `box_area` is the median share of the picture over all requested boxes; `iou_last` and
    `iou_best` are means over episodes with boxes and truth.
    """
    totals = [term.total for term in terms]
    areas = [box.area for episode in episodes for box in episode.boxes]
    return {
        **{
            f"reward_{field.name}": mean(getattr(term, field.name) for term in terms)
            for field in fields(RewardTerms)
        },
        "reward": mean(totals),
        "reward_std": pstdev(totals) if totals else None,
        "accuracy": mean(float(episode.verdict.correct) for episode in episodes),
        "tool_rate": mean(float(episode.shown_crops > 0) for episode in episodes),
        "turns": mean(len(episode.turns) for episode in episodes),
        "malformed": mean(float(bool(episode.malformed)) for episode in episodes),
        "unanswered": mean(float(episode.answer is None) for episode in episodes),
        "box_area": median(areas) if areas else None,
        "iou_last": _mean_iou(episodes, lambda boxes: boxes[-1:]),
        "iou_best": _mean_iou(episodes, lambda boxes: boxes),
    }


def validation_numbers(episodes: Sequence[Episode], terms: Sequence[RewardTerms]) -> Numbers:
    """Metrics of greedy episodes of held-out samples."""
    numbers = episode_numbers(episodes, terms)
    return {
        f"validation_{name}": numbers[name]
        for name in ("reward", "accuracy", "tool_rate", "iou_last", "box_area")
    }


def is_best(numbers: Numbers, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the validation reward is higher than all in the metrics `history`."""
    now = numbers["validation_reward"]
    earlier = [
        row["validation_reward"] for row in history if row.get("validation_reward") is not None
    ]
    return now is not None and now > max(earlier, default=float("-inf"))


def _mean_iou(
    episodes: Sequence[Episode], chosen: Callable[[Sequence[Box]], Sequence[Box]]
) -> float | None:
    ious = [target_iou(chosen(episode.boxes), episode.sample.boxes) for episode in episodes]
    return mean(iou for iou in ious if iou is not None)


def sampling_numbers(groups: Sequence[Group]) -> Numbers:
    """Metrics of sampling: `entropy` of the policy in nats per token (mean of -log pi of its
    samples, unbiased), `policy_tokens`, and `zero_variance`, the share of groups with equal
    rewards.
    """
    logprobs = [
        logprob
        for episode in episodes_of(groups)
        for turn in episode.turns
        for logprob in turn.reply.logprobs
    ]
    return {
        "entropy": mean(-logprob for logprob in logprobs),
        "policy_tokens": float(len(logprobs)),
        "zero_variance": mean(float(not group.has_signal) for group in groups),
    }
