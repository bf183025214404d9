"""What the episodes of a step were like, as numbers. An absent quantity is None."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from statistics import fmean, median, pstdev
from typing import Any

from lfpc.boxes import Box, iou
from lfpc.episode import Episode
from lfpc.rewards import RewardTerms

Numbers = dict[str, float | None]


def mean(values: Iterable[float]) -> float | None:
    """Mean of the values, None if there are none or it is not a number."""
    found = list(values)
    average = fmean(found) if found else math.nan
    return average if math.isfinite(average) else None


def episode_numbers(episodes: Sequence[Episode], terms: Sequence[RewardTerms]) -> Numbers:
    """Rewards term by term, answers, turns, crops of a set of episodes.

    `accuracy`, `tool_rate` (a crop was shown), `malformed` and `unanswered` are shares of episodes;
    `box_area` is the median share of the picture over all requested boxes; `iou_last` and
    `iou_best` are means over episodes with boxes and truth.
    """
    totals = [term.total for term in terms]
    boxed = [episode for episode in episodes if episode.boxes and episode.sample.boxes]
    areas = [box.area for episode in episodes for box in episode.boxes]
    return {
        **{
            f"reward_{field.name}": mean(getattr(term, field.name) for term in terms)
            for field in fields(RewardTerms)
        },
        "reward": mean(totals),
        "reward_std": pstdev(totals),
        "accuracy": mean(float(episode.verdict.correct) for episode in episodes),
        "tool_rate": mean(float(episode.shown_crops > 0) for episode in episodes),
        "turns": mean(len(episode.turns) for episode in episodes),
        "malformed": mean(float(bool(episode.malformed)) for episode in episodes),
        "unanswered": mean(float(episode.answer is None) for episode in episodes),
        "box_area": median(areas) if areas else None,
        "iou_last": mean(nested_iou(episode, episode.boxes[-1:]) for episode in boxed),
        "iou_best": mean(nested_iou(episode, episode.boxes) for episode in boxed),
    }


def validation_numbers(episodes: Sequence[Episode], terms: Sequence[RewardTerms]) -> Numbers:
    """What is told of greedy episodes of held-out samples."""
    numbers = episode_numbers(episodes, terms)
    return {
        f"validation_{name}": numbers[name]
        for name in ("reward", "accuracy", "tool_rate", "iou_last", "box_area")
    }


def is_best(numbers: Numbers, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a validation earned more than every one in the metrics rows `history`."""
    now = numbers["validation_reward"]
    earlier = [
        row["validation_reward"] for row in history if row.get("validation_reward") is not None
    ]
    return now is not None and now > max(earlier, default=float("-inf"))


def nested_iou(episode: Episode, boxes: Sequence[Box]) -> float:
    """Mean over targets of the best IoU of any of `boxes` with any nested truth box of the
    target.
    """
    return fmean(
        max(iou(box, truth) for box in boxes for truth in nested) for nested in episode.sample.boxes
    )


def sampling_numbers(
    episodes: Sequence[Episode], advantages: Sequence[float], group_size: int
) -> Numbers:
    """`entropy` of the policy in nats per token (mean of -log pi of its samples, unbiased),
    `policy_tokens`, and `zero_variance`, the share of groups whose rollouts all earned the same.
    """
    logprobs = [
        logprob for episode in episodes for turn in episode.turns for logprob in turn.reply.logprobs
    ]
    groups = [
        advantages[start : start + group_size] for start in range(0, len(advantages), group_size)
    ]
    return {
        "entropy": mean(-logprob for logprob in logprobs),
        "policy_tokens": float(len(logprobs)),
        "zero_variance": mean(float(not any(group)) for group in groups),
    }
