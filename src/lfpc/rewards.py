"""Rewards as pure functions, each with its equation. An episode's reward keeps its terms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from lfpc.boxes import Box, corner_distance, coverage, iou
from lfpc.episode import Episode
from lfpc.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """Weights and constants of the reward, which the paper leaves open; docs/decisions.md gives
    reasons.
    """

    accuracy: float = 1.0
    """Reward of a right answer."""
    format: float = 1.0
    """Penalty of an episode with a malformed reply or without an answer."""
    tool: float = 0.5
    """Reward of a right answer after at least one shown crop."""
    grounding: float = 0.0
    """Weight of r_geo in the total; 0 outside Stage II."""
    iou_weight: float = 0.5
    """w: weight of the IoU term; the corner distance term has 1 - w."""
    min_coverage: float = 0.9
    """tau: share of B_1 that a crop must contain for the IoU term."""
    guarded: bool = True
    """Whether the IoU term needs min_coverage; without, it is the plain IoU (an ablation)."""
    predicted: Literal["first", "last", "best"] = "last"
    """Choice of B_p among several crops."""

    def __post_init__(self) -> None:
        for name in ("iou_weight", "min_coverage"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardTerms:
    """One episode's weighted reward terms; GRPO uses `total`."""

    accuracy: float = 0.0
    format: float = 0.0
    tool: float = 0.0
    grounding: float = 0.0

    @property
    def total(self) -> float:
        """Sum of the terms."""
        return self.accuracy + self.format + self.tool + self.grounding


def grounding_reward(
    predicted: Box,
    nested: Sequence[Box],
    *,
    min_coverage: float = 0.9,
    iou_weight: float = 0.5,
    guarded: bool = True,
) -> float:
    """Score a crop against nested truth boxes.

        r_iou = max_i IoU(B_p, B_i)  if coverage(B_p, B_1) > min_coverage else 0
        r_l1  = 1 - min_i d_L1(B_p, B_i)
        r_geo = w * r_iou + (1 - w) * r_l1

    Args:
        predicted: the policy's box B_p.
        nested: truth boxes, B_1 (tightest) first.
        min_coverage: tau, share of B_1 that B_p has to contain.
        iou_weight: w, in [0, 1].
        guarded: whether the IoU term needs the coverage.
    Returns:
        The reward, in [0, 1].
    Raises:
        ValueError: `nested` is empty.
    Source: LFPC, arXiv 2603.27494, Stage II. d_L1 is the mean of the four corner differences in
    fractions of the picture.
    """
    if not nested:
        raise ValueError("grounding_reward needs at least one truth box, got none")
    covers = not guarded or coverage(predicted, nested[0]) > min_coverage
    r_iou = max(iou(predicted, box) for box in nested) if covers else 0.0
    r_l1 = 1 - min(corner_distance(predicted, box) for box in nested)
    return iou_weight * r_iou + (1 - iou_weight) * r_l1


def episode_grounding(episode: Episode, config: RewardConfig) -> float:
    """r_geo of an episode, in [0, 1]: mean over targets of the score of B_p; 0 without a crop or
    without truth boxes.

    With `predicted="first"` or `"last"` one crop counts for every target; with `"best"` each target
    has its best crop.
    """
    if not episode.boxes or not episode.sample.boxes:
        return 0.0
    candidates = {"first": episode.boxes[:1], "last": episode.boxes[-1:], "best": episode.boxes}[
        config.predicted
    ]

    def score(box: Box, nested: Sequence[Box]) -> float:
        return grounding_reward(
            box,
            nested,
            min_coverage=config.min_coverage,
            iou_weight=config.iou_weight,
            guarded=config.guarded,
        )

    return fmean(max(score(box, nested) for box in candidates) for nested in episode.sample.boxes)


def episode_reward(episode: Episode, config: RewardConfig) -> RewardTerms:
    """Reward of one episode.

        r = a * r_acc - f * [malformed or unanswered] + 1[r_acc > 0] * t * [a crop was shown] + g *
        r_geo

    Source: LFPC, Stage I and II; a, f, t, g are the weights of `config`.
    """
    correct = episode.verdict.correct
    sound = episode.answer is not None and not episode.malformed
    return RewardTerms(
        accuracy=config.accuracy * correct,
        format=0.0 if sound else -config.format,
        tool=config.tool * (correct and episode.shown_crops > 0),
        grounding=config.grounding * episode_grounding(episode, config)
        if config.grounding
        else 0.0,
    )


RewardFunction = Callable[[Episode], RewardTerms]
