"""Metrics of episodes and groups, and warnings about a failing run. A quantity that does not exist
is None.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean, median, pstdev
from typing import Any

import numpy as np

from lfpc.boxes import Box, target_iou
from lfpc.episode import Episode
from lfpc.errors import RunError
from lfpc.records import episode_answered_before_crop, truncated_replies
from lfpc.rewards import RewardTerms, repeated
from lfpc.training.config import TrainConfig
from lfpc.training.groups import Group, episodes_of

Numbers = dict[str, float | None]


def mean(values: Iterable[float]) -> float | None:
    """Mean of the values; None without values, or if it is not finite."""
    found = list(values)
    average = fmean(found) if found else math.nan
    return average if math.isfinite(average) else None


def episode_numbers(episodes: Sequence[Episode], terms: Sequence[RewardTerms]) -> Numbers:
    """Metrics of episodes: rewards term by term, answers, turns, crops.

    `crops` (shown) and `reply_tokens` are means per episode; `repeats` is the share of the crops
    that an earlier picture of the episode shows (see `rewards.is_repeat`);
    `accuracy`, `tool_rate` (a crop was shown), `malformed` and `unanswered` are shares of episodes;
    `truncated` is the share of episodes with a reply that the token limit ended (None: unknown);
    `answered_before_crop` is the share of the episodes with a crop whose text shows it; `box_area`
    is the median share of the picture over all requested boxes; `iou_last` and `iou_best` are means
    over episodes with boxes and truth.
    """
    totals = [term.total for term in terms]
    cut = [truncated_replies(turn.reply for turn in episode.turns) for episode in episodes]
    early = [episode_answered_before_crop(episode) for episode in episodes]
    areas = [box.area for episode in episodes for box in episode.boxes]
    repeats = [repeat for episode in episodes for repeat in repeated(episode.views)]
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
        "crops": mean(episode.shown_crops for episode in episodes),
        "repeats": mean(float(repeat) for repeat in repeats),
        "reply_tokens": mean(
            sum(turn.reply.tokens for turn in episode.turns) for episode in episodes
        ),
        "malformed": mean(float(bool(episode.malformed)) for episode in episodes),
        "unanswered": mean(float(episode.answer is None) for episode in episodes),
        "truncated": mean(float(count > 0) for count in cut if count is not None),
        "answered_before_crop": mean(float(value) for value in early if value is not None),
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
    samples, unbiased), `policy_tokens`, `zero_variance`, the share of groups with equal
    rewards, and `signal_TERM`, see `signal_shares`.
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
        **signal_shares(groups),
    }


def signal_shares(groups: Sequence[Group]) -> Numbers:
    """Share of the rewards' variance within groups that each term brings: what the step learns
    from, where means tell what it is paid for. None: no group's rewards differ.

        signal_TERM = sum cov(term, total) / sum var(total)     sums over groups; shares add up to 1

    A term that opposes the others has a negative share.
    """
    totals = [np.array([term.total for term in group.terms]) for group in groups]
    spread = sum(float(np.var(total)) for total in totals)
    found: Numbers = {}
    for field in fields(RewardTerms):
        values = [np.array([getattr(term, field.name) for term in group.terms]) for group in groups]
        shared = sum(
            float(np.mean((value - value.mean()) * (total - total.mean())))
            for value, total in zip(values, totals, strict=True)
        )
        found[f"signal_{field.name}"] = shared / spread if spread > 0 else None
    return found


WINDOW = 5
"""Steps to average, at the start of the run and now."""
LEAST_FALL = 0.25
"""Smallest fall of the mean reward that counts as a collapse, half of the default tool reward, and
of the accuracy."""
LEAST_GROWTH = 100
"""Smallest growth of the reply tokens of an episode that counts as long."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The range of a metric in which a run is sound, whatever the run began with."""

    code: str
    metric: str
    least: float = -math.inf
    most: float = math.inf


LIMITS = (
    Limit("no_tool", "tool_rate", least=0.1),
    Limit("malformed", "malformed", most=0.5),
    Limit("unanswered", "unanswered", most=0.5),
    Limit("truncated", "truncated", most=0.5),
    Limit("crops", "crops", most=4.0),
    Limit("repeats", "repeats", most=0.5),
    Limit("long", "reply_tokens", most=2048),
    Limit("flat_groups", "zero_variance", most=0.95),
    Limit("no_entropy", "entropy", least=0.02),
    Limit("box_whole", "box_area", most=0.45),
    Limit("box_tiny", "box_area", least=2e-4),
    Limit("answer_first", "answered_before_crop", most=0.5),
    Limit("logprob_gap", "logprob_gap", most=0.5),
)
"""Limits of the mean over the last steps, from the first step on. A box of 0.45
magnifies 1.5 times; one of 2e-4 has 40 x 40 pixels of 3840 x 2160. 2,048 tokens are the
paper's limit of a reply."""
ALARM_TEXTS = {
    "no_tool": "the policy hardly crops, or has almost stopped: the tool reward may be too small, "
    "crops may not help, or calls do not parse",
    "malformed": "most episodes have a malformed reply: the protocol may not be the model's",
    "unanswered": "most episodes end without an answer: the turn or token limit may be too low, or "
    "the protocol may not be the model's",
    "truncated": "the token limit ends replies of most episodes: raise --max-new-tokens, unless "
    "they repeat themselves",
    "flat_groups": "almost all groups have equal rewards and no gradient: the questions may be too "
    "easy or too hard, or the temperature too low",
    "no_entropy": "the policy hardly varies its replies: its entropy is gone, and it will not "
    "explore further",
    "reward": "the reward has fallen far below its best: the policy may have collapsed; resume "
    "from an earlier checkpoint with a lower learning rate",
    "accuracy": "the accuracy has fallen far below its best: if the reward has not, it is paid for "
    "something other than right answers",
    "turns": "episodes have become much longer: the policy may crop without end",
    "crops": "episodes have more than four crops: the policy may crop without end; "
    "--reward.crop-cost makes further crops cost something",
    "repeats": "most crops show what an earlier picture of the episode shows: the policy may crop "
    "for the tool reward alone; --reward.repeat-iou leaves repeats unpaid",
    "long": "replies are very long, or have become so: --reward.length-cost makes tokens cost "
    "something",
    "box_whole": "most boxes cover half of the picture or more: the policy may be cropping "
    "everything",
    "box_tiny": "most boxes cover next to nothing, such as a single pixel: the policy may crop for "
    "the tool reward alone",
    "box_grows": "boxes have grown to more than twice their area: the policy may be cropping "
    "everything",
    "box_shrinks": "boxes have shrunk to less than a quarter of their area",
    "answer_first": "most episodes with a crop give their answer before it: the policy may crop "
    "only for the tool reward",
    "no_gradient": "the gradient was not finite or no rollout could be trained in any of the "
    "last steps",
    "logprob_gap": "training computes other log-probabilities than sampling did",
}


def alarms(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Codes (keys of `ALARM_TEXTS`) of the current alarms.

    The mean of the last steps is compared with fixed `LIMITS` from the first step on, and with the
    run's own start once there are two windows of steps.

    Args:
        history: metrics of all steps so far, oldest first.
    """
    now = history[-WINDOW:]
    found = [limit.code for limit in LIMITS if _is_outside(_mean(now, limit.metric), limit)]
    if len(now) == WINDOW and all(row.get("grad_norm") is None for row in now):
        found.append("no_gradient")
    if len(history) >= 2 * WINDOW:
        found += _changes(history)
    return [code for code in ALARM_TEXTS if code in found]


def _is_outside(value: float | None, limit: Limit) -> bool:
    return value is not None and not limit.least <= value <= limit.most


def _changes(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Codes of the changes since the start of the run, or since its best steps."""
    first = history[:WINDOW]
    now = history[-WINDOW:]
    found: list[str] = []
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
    entropy = _mean(first, "entropy")
    entropy_now = _mean(now, "entropy")
    if entropy and entropy_now is not None and entropy_now < entropy / 5:
        found.append("no_entropy")
    tokens = _mean(first, "reply_tokens")
    tokens_now = _mean(now, "reply_tokens")
    if tokens and tokens_now and tokens_now > 3 * tokens and tokens_now > tokens + LEAST_GROWTH:
        found.append("long")
    found += [code for code in ("reward", "accuracy") if _has_fallen(history, code)]
    return found


def _has_fallen(history: Sequence[Mapping[str, Any]], metric: str) -> bool:
    """Whether a metric has lost more than half of its best."""
    means = _window_means(history, metric)
    return bool(means) and max(means) - means[-1] > max(LEAST_FALL, abs(max(means)) / 2)


def new_alarms(codes: Sequence[str], history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Texts of those `codes` that no step of `history` has raised."""
    known = {code for row in history for code in row.get("alarms", ())}
    return [ALARM_TEXTS[code] for code in codes if code not in known]


PATIENCE = 3
"""Consecutive steps without any trained rollout, for a reason that does not pass, before a run
stops."""


def check_progress(history: Sequence[Mapping[str, Any]], config: TrainConfig) -> None:
    """Check that the last steps trained something. Groups with equal rewards train nothing either,
    but may pass: they raise an alarm only.

    Args:
        history: metrics of all steps so far, oldest first.
        config: the run.
    Raises:
        RunError: every rollout of the last `PATIENCE` steps was overlong, or none of their
            gradients was finite.
    """
    now = history[-PATIENCE:]
    rollouts = config.prompts_per_step * config.group_size
    if len(now) < PATIENCE:
        return
    if all((row.get("overlong") or 0) + (row.get("failed") or 0) >= rollouts for row in now):
        raise RunError(
            f"{config.out}: every rollout of the last {PATIENCE} steps is longer than "
            f"--max-rollout-tokens {config.max_rollout_tokens}, so nothing is trained; raise it, "
            f"or lower the first-view budget, --crop.max-tokens or --max-turns"
        )
    if all(row.get("trained_rollouts") and row.get("grad_norm") is None for row in now):
        raise RunError(
            f"{config.out}: the gradient was not finite in the last {PATIENCE} steps, so nothing "
            f"is trained; lower --learning-rate (now {config.learning_rate:g}), or start from "
            f"another checkpoint"
        )


def _window_means(history: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """Means of every `WINDOW` consecutive steps."""
    windows = (history[end - WINDOW : end] for end in range(WINDOW, len(history) + 1))
    return [value for window in windows if (value := _mean(window, key)) is not None]


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    return mean(row[key] for row in rows if row.get(key) is not None)
