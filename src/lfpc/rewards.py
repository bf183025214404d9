"""Rewards as pure functions, each with its equation. An episode's reward keeps its terms.

The defaults are the paper's equations (`PAPER`). They also pay crops that are no use; the options
of `RewardConfig` that close this are set together in `STRICT`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite
from statistics import fmean
from typing import Literal

from lfpc.boxes import WHOLE, Box, corner_distance, coverage, iou
from lfpc.dialogue import Crop, Malformed, Turn, crop_turns
from lfpc.episode import Episode
from lfpc.errors import ConfigError
from lfpc.images import View

L1Scale = Literal["picture", "trivial", "box"]
"""Corner distance at which r_L1 is 0; see `l1_reward`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """Weights and constants of the reward, which the paper leaves open, and options beyond the
    paper, which are off by default; docs/method.md has both, docs/decisions.md the reasons.
    """

    accuracy: float = 1.0
    """Reward of a right answer."""
    format: float = 1.0
    """Penalty of an episode that is not well-formed: without an answer, or with a reply that is
    malformed, was ended by the token limit, or is not exactly what the prompt asks for."""
    tool: float = 0.5
    """Reward of a right answer after at least one shown crop."""
    pay: Literal["crop", "information"] = "crop"
    """What earns r_tool. crop: a shown crop, as in the paper; information: what the crops told, in
    [0, 1]: how much likelier they make the right answer than noise in their place does, in
    log-odds. Local engine only."""
    margin: float = 0.2
    """Log-odds that earn nothing with --reward.pay information."""
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

    new_pixels: int = 0
    """Minimum original pixels that a crop must add to the first view's of the same region to earn
    r_tool and r_geo. 0: no minimum."""
    repeat_iou: float | None = None
    """IoU with an earlier picture of the episode, the first view included, from which a crop is a
    repeat and earns neither r_tool nor r_geo. Default: repeats are paid."""
    l1_scale: L1Scale = "picture"
    """Corner distance at which r_L1 is 0. picture: the picture's side, as in the paper; trivial:
    that of the nearest trivial box; box: a quarter of the truth box's width plus height."""
    gate_grounding: bool = False
    """Pay r_geo only with a right answer."""
    length_cost: float = 0.0
    """Cost of 1,000 reply tokens of an episode beyond --reward.free-tokens."""
    free_tokens: int = 512
    """Reply tokens of an episode without a length cost."""
    crop_cost: float = 0.0
    """Cost of each shown crop after the first."""
    area_cost: float = 0.0
    """Cost of a box of the whole picture; an episode's largest requested box costs its share of the
    area, whatever is shown for it."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not isfinite(value):
                option = f"--reward.{field.name.replace('_', '-')}"
                raise ConfigError(f"{option} must be a finite number, got {value}")
        for name in ("iou_weight", "min_coverage"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"`reward.{name}` must lie in [0, 1], got {getattr(self, name)}")
        if self.repeat_iou is not None and not 0 < self.repeat_iou <= 1:
            raise ConfigError(f"`reward.repeat_iou` must lie in (0, 1], got {self.repeat_iou}")
        least_0 = ("margin", "new_pixels", "length_cost", "free_tokens", "crop_cost", "area_cost")
        for name in least_0:
            if not getattr(self, name) >= 0:
                option = f"--reward.{name.replace('_', '-')}"
                raise ConfigError(f"{option} must be at least 0, got {getattr(self, name)}")
        if self.pay not in ("crop", "information"):
            raise ConfigError(f"`reward.pay` must be crop or information, got {self.pay!r}")
        if self.l1_scale not in ("picture", "trivial", "box"):
            raise ConfigError(
                f"--reward.l1-scale must be one of picture, trivial, box, got {self.l1_scale!r}"
            )


REPEAT_IOU = 0.5
"""IoU of a repeat. The first view shows the whole picture, so half of it is a repeat too."""
PAPER = RewardConfig()
"""The paper's equations."""


def strict(config: RewardConfig) -> RewardConfig:
    """`config` with every option that keeps a crop from being paid without being used."""
    return replace(
        config,
        new_pixels=100,
        repeat_iou=REPEAT_IOU,
        l1_scale="trivial",
        gate_grounding=True,
        length_cost=0.1,
        crop_cost=0.05,
    )


STRICT = strict(PAPER)
"""The paper's equations with all options. 100 pixels are a character of 10 x 10."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardTerms:
    """One episode's weighted reward terms; GRPO uses `total`."""

    accuracy: float = 0.0
    format: float = 0.0
    tool: float = 0.0
    grounding: float = 0.0
    length: float = 0.0
    crops: float = 0.0

    @property
    def total(self) -> float:
        """Sum of the terms."""
        return self.accuracy + self.format + self.tool + self.grounding + self.length + self.crops


# --- what a crop adds


def new_pixels(crop: View, first_view: View) -> float:
    """Original pixels that a crop adds to those of the first view in the same region; 0 or less if
    the first view shows the region as sharply.

        min(shown, cut) - cut * min(1, first view / original)     areas in pixels

    Pixels that a small cut is enlarged to are not new, so a crop of one pixel adds at most one.
    """
    width, height = crop.original_size
    left, top, right, bottom = crop.cut or crop.region.to_pixels((width, height))
    cut = (min(right, width) - max(left, 0)) * (min(bottom, height) - max(top, 0))
    sharpness = min(1.0, _area(first_view) / (width * height))
    return min(_area(crop), cut) - cut * sharpness


def _area(view: View) -> int:
    return view.size[0] * view.size[1]


def is_repeat(crop: View, earlier: Sequence[View], least: float = REPEAT_IOU) -> bool:
    """Whether an earlier picture shows the region of `crop`: with an IoU of at least `least`."""
    return any(iou(crop.region, view.region) >= least for view in earlier)


def repeated(views: Sequence[View]) -> list[bool]:
    """For each crop among an episode's pictures, the first view first: whether it is a repeat."""
    return [is_repeat(views[n], views[:n]) for n in range(1, len(views))]


def paid_crops(episode: Episode, config: RewardConfig) -> list[Turn]:
    """The turns whose crops may earn r_tool and r_geo: without options, every one that a reply
    follows; with options, only new ones.
    """
    seen = crop_turns(episode.turns)
    if not config.new_pixels and config.repeat_iou is None:
        return list(seen)
    earlier = [episode.first_view]
    found: list[Turn] = []
    for turn in seen:
        if turn.view is None:
            continue
        repeat = config.repeat_iou is not None and is_repeat(turn.view, earlier, config.repeat_iou)
        if not repeat and new_pixels(turn.view, episode.first_view) >= config.new_pixels:
            found.append(turn)
        earlier.append(turn.view)
    return found


# --- grounding

_CORNERS = tuple(Box(x, y, x + 1e-3, y + 1e-3) for x in (0, 1 - 1e-3) for y in (0, 1 - 1e-3))
_HALVES = (Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1), Box(0, 0, 1, 0.5), Box(0, 0.5, 1, 1))
TRIVIAL_BOXES = (
    WHOLE,
    *_HALVES,
    Box(0.25, 0.25, 0.75, 0.75),
    *_CORNERS,
    Box(0.4995, 0.4995, 0.5005, 0.5005),
)
"""Boxes that need no look at the picture: all of it, its halves, the middle half of its sides, and
points in its corners and its centre."""
TRIVIAL_MARGIN = 0.02
"""Boxes within this corner distance of a trivial one are trivial as well."""


def l1_reward(predicted: Box, nested: Sequence[Box], scale: L1Scale = "picture") -> float:
    """r_L1, in [0, 1]: 1 for a truth box, falling with the corner distance.

        r_l1 = max_i max(0, 1 - d_L1(B_p, B_i) / s_i)

        picture    s_i = 1                                      the paper's 1 - min_i d_L1
        trivial    s_i = min over TRIVIAL_BOXES of d_L1(., B_i) - TRIVIAL_MARGIN
        box        s_i = (width of B_i + height of B_i) / 4

    With "trivial", trivial boxes earn 0. With "box", a point anywhere earns 0, and so does a box
    with the same centre and three times the sides. A truth box that is itself trivial pays nothing
    with "trivial".
    """
    return max(_l1_score(corner_distance(predicted, box), box, scale) for box in nested)


def _l1_score(distance: float, truth: Box, scale: L1Scale) -> float:
    match scale:
        case "picture":
            zero = 1.0
        case "trivial":
            zero = min(corner_distance(box, truth) for box in TRIVIAL_BOXES) - TRIVIAL_MARGIN
        case "box":
            zero = (truth.x1 - truth.x0 + truth.y1 - truth.y0) / 4
    return max(0.0, 1 - distance / zero) if zero > 0 else 0.0


def grounding_reward(
    predicted: Box,
    nested: Sequence[Box],
    *,
    min_coverage: float = 0.9,
    iou_weight: float = 0.5,
    guarded: bool = True,
    l1_scale: L1Scale = "picture",
) -> float:
    """Score a crop against nested truth boxes.

        r_iou = max_i IoU(B_p, B_i)  if coverage(B_p, B_1) > min_coverage else 0
        r_l1  = 1 - min_i d_L1(B_p, B_i)        with l1_scale="picture"; see `l1_reward`
        r_geo = w * r_iou + (1 - w) * r_l1

    Args:
        predicted: the policy's box B_p.
        nested: truth boxes, B_1 (tightest) first.
        min_coverage: tau, share of B_1 that B_p has to contain.
        iou_weight: w, in [0, 1].
        guarded: whether the IoU term needs the coverage.
        l1_scale: corner distance at which r_l1 is 0.
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
    return iou_weight * r_iou + (1 - iou_weight) * l1_reward(predicted, nested, l1_scale)


def episode_grounding(episode: Episode, config: RewardConfig) -> float:
    """r_geo of an episode, in [0, 1]: mean over targets of the score of B_p; 0 without a paid crop
    (see `paid_crops`) or without truth boxes.

    With `predicted="first"` or `"last"` one crop counts for every target; with `"best"` each target
    has its best crop.
    """
    paid = paid_crops(episode, config)
    boxes = [turn.action.box for turn in paid if isinstance(turn.action, Crop)]
    if not boxes or not episode.sample.boxes:
        return 0.0
    candidates = {"first": boxes[:1], "last": boxes[-1:], "best": boxes}[config.predicted]

    def score(box: Box, nested: Sequence[Box]) -> float:
        return grounding_reward(
            box,
            nested,
            min_coverage=config.min_coverage,
            iou_weight=config.iou_weight,
            guarded=config.guarded,
            l1_scale=config.l1_scale,
        )

    return fmean(max(score(box, nested) for box in candidates) for nested in episode.sample.boxes)


def episode_reward(episode: Episode, config: RewardConfig) -> RewardTerms:
    """Reward of one episode.

        r = a * r_acc - f * [not well-formed] + 1[r_acc > 0] * t * [a crop was shown] + g * r_geo
            - length_cost * max(0, reply tokens - free_tokens) / 1000 - crop_cost * further crops
            - area_cost * area of the largest requested box

    An episode is well-formed if it has an answer, no reply was malformed or ended by the token
    limit, and every call and answer is exact (`Crop.exact`). Parsers also read calls that were
    repaired, not closed, or have others beside them; a policy that is paid for these writes more
    and more of them.

    Source: LFPC, Stage I and II; a, f, t, g are the weights of `config`. The costs, and the options
    that decide which crops are paid, are this project's, and 0 or off by default.
    """
    correct = episode.verdict.correct
    sound = episode.answer is not None and all(map(_is_sound, episode.turns))
    shown = any(turn.view is not None for turn in paid_crops(episode, config))
    tokens = sum(turn.reply.tokens for turn in episode.turns)
    grounded = config.grounding and (correct or not config.gate_grounding)
    return RewardTerms(
        accuracy=config.accuracy * correct,
        format=0.0 if sound else -config.format,
        tool=config.tool * (correct and shown),
        grounding=config.grounding * episode_grounding(episode, config) if grounded else 0.0,
        length=0.0 - config.length_cost * max(0, tokens - config.free_tokens) / 1000,
        crops=0.0
        - config.crop_cost * max(0, episode.shown_crops - 1)
        - config.area_cost * max((box.area for box in episode.boxes), default=0.0),
    )


def _is_sound(turn: Turn) -> bool:
    action = turn.action
    return not isinstance(action, Malformed) and action.exact and not turn.reply.truncated


RewardFunction = Callable[[Episode], RewardTerms]
