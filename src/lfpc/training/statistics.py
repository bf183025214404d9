"""Metrics of episodes and groups, and warnings about a failing run. A quantity that does not exist
is None.
"""

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


WINDOW = 5
"""Steps to average, at the start of the run and now."""
ALARM_TEXTS = {
    "no_tool": "the policy has almost stopped cropping: the tool reward may be too small, or crops "
    "may not help",
    "turns": "episodes have become much longer: the policy may crop without end",
    "box_grows": "boxes have grown to more than twice their area: the policy may be cropping "
    "everything",
    "box_shrinks": "boxes have shrunk to less than a quarter of their area",
    "no_gradient": "the gradient was not finite or no rollout could be trained in any of the "
    "last steps",
    "logprob_gap": "training computes other log-probabilities than sampling did",
}


def alarms(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Codes (keys of `ALARM_TEXTS`) of the current alarms.

    Args:
        history: metrics of all steps so far, oldest first; no alarms before two windows of steps.
    """
    if len(history) < 2 * WINDOW:
        return []
    first = history[:WINDOW]
    now = history[-WINDOW:]
    found: list[str] = []
    tool = _mean(first, "tool_rate")
    tool_now = _mean(now, "tool_rate")
    if tool is not None and tool_now is not None and tool_now < 0.05 < tool:
        found.append("no_tool")
    turns = _mean(first, "turns")
    turns_now = _mean(now, "turns")
    if turns and turns_now and turns_now > turns + 1 and turns_now > 1.5 * turns:
        found.append("turns")
    area = _mean(first, "box_area")
    area_now = _mean(now, "box_area")
    if area and area_now and area_now > 2 * area:
        found.append("box_grows")
    if area and area_now and area_now < area / 4:
        found.append("box_shrinks")
    if all(row.get("grad_norm") is None for row in now):
        found.append("no_gradient")
    if (_mean(now, "logprob_gap") or 0.0) > 0.5:
        found.append("logprob_gap")
    return found


def new_alarms(codes: Sequence[str], history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Texts of those `codes` that no step of `history` has raised."""
    known = {code for row in history for code in row.get("alarms", ())}
    return [ALARM_TEXTS[code] for code in codes if code not in known]


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    return mean(row[key] for row in rows if row.get(key) is not None)
