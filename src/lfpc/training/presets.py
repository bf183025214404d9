"""The paper's runs and ablations as configurations, which differ only in what each one studies."""

from dataclasses import replace
from difflib import get_close_matches

from lfpc.errors import ConfigError
from lfpc.rewards import RewardConfig, strict
from lfpc.training.config import TrainConfig

STAGE1 = TrainConfig(first_view="selected")
"""The information gap: the first view at each sample's selected budget, crops from the original."""
BASELINE = replace(STAGE1, first_view="original")
"""No information gap: crops hold nothing that the first view does not."""
STAGE2 = replace(STAGE1, reward=RewardConfig(grounding=1.0))
"""Precise cropping: Stage I with the grounding reward, on boxed samples."""

PRESETS: dict[str, tuple[str, TrainConfig]] = {
    "baseline": (
        "no information gap: the first view at the original's resolution",
        BASELINE,
    ),
    "stage1": ("learn to focus: the first view at each sample's selected budget", STAGE1),
    "stage2": (
        "precise cropping: Stage I and the grounding reward; start from a Stage I "
        "checkpoint, on hard boxed samples",
        STAGE2,
    ),
    "stage1-strict": (
        "Stage I with every option of the reward against crops that are paid and not used",
        replace(STAGE1, reward=strict(STAGE1.reward)),
    ),
    "stage2-strict": (
        "Stage II with the same options; differs from stage2 in `reward` alone",
        replace(STAGE2, reward=strict(STAGE2.reward)),
    ),
    "deepeyes": (
        "the baseline with the weights of DeepEyes' reward: accuracy 0.8, format 0.2, tool 1.2",
        replace(BASELINE, reward=RewardConfig(accuracy=0.8, format=0.2, tool=1.2)),
    ),
    "baseline-matched": (
        "control: the baseline with as many steps and the same samples as Stage I and II; start "
        "from a baseline checkpoint, on Stage II's samples",
        BASELINE,
    ),
    "information": (
        "beyond the paper: no information gap, and r_tool is paid for what the crops told",
        replace(STAGE1, first_view="original", reward=RewardConfig(pay="information")),
    ),
    "stage1-information": (
        "beyond the paper: Stage I, and r_tool is paid for what the crops told",
        replace(STAGE1, reward=RewardConfig(pay="information")),
    ),
    "stage1-continued": (
        "control: Stage II's steps and samples without the grounding reward; start from a "
        "Stage I checkpoint",
        STAGE1,
    ),
    "stage2-easy-data": (
        "ablation: Stage II on Stage I's own (easy) samples, boxed; differs from stage2 in "
        "`data` alone",
        STAGE2,
    ),
    "stage2-no-l1": (
        "ablation: grounding reward without the corner distance",
        replace(STAGE2, reward=replace(STAGE2.reward, iou_weight=1.0)),
    ),
    "stage2-plain-iou": (
        "ablation: grounding reward is the IoU, also of crops that miss part of the target",
        replace(STAGE2, reward=replace(STAGE2.reward, iou_weight=1.0, guarded=False)),
    ),
    "random-budget": (
        "control: Stage I with the selected budgets dealt to the samples at random",
        replace(STAGE1, first_view="random"),
    ),
    "stage1-fixed-budget": (
        "ablation: one budget for every first view in place of selection",
        replace(STAGE1, first_view="fixed"),
    ),
}


def preset(name: str) -> TrainConfig:
    """The configuration called `name`.

    Raises:
        ConfigError: unknown preset; the message lists the known ones, with the nearest as a hint.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown preset {name!r}{hint} (known: {', '.join(PRESETS)})")
    return PRESETS[name][1]
