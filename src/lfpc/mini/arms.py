"""Arms of the study: what each trains on, what it starts from, and what it decides."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from lfpc.training.config import TrainConfig
from lfpc.training.presets import PRESETS, preset

Data = Literal["selected", "lower", "higher", "some-full", "hard"]
"""Samples of a run. selected: easy samples with the budgets of selection; lower, higher: one level
down or up; some-full: 30 % of them at the full budget; hard: hard samples, with theirs."""
_DATA: Mapping[Data, str] = {
    "selected": "on the easy samples",
    "lower": "with budgets one level lower",
    "higher": "with budgets one level higher",
    "some-full": "with 30 % of the samples at the full budget",
    "hard": "on the hard samples",
}
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One policy of the study."""

    preset: str
    parent: str = ""
    """Arm whose last checkpoint it starts from; empty: the base."""
    data: Data = "selected"
    change: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    """Fields of the run that differ from the preset's."""
    reward: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    """The same for its reward."""

    def config(self) -> TrainConfig:
        """The preset with the arm's changes."""
        run = preset(self.preset)
        return replace(run, **self.change, reward=replace(run.reward, **self.reward))

    @property
    def text(self) -> str:
        """Its preset and what differs from it, with options as they are typed."""
        changes = {**self.change, **{f"reward.{key}": value for key, value in self.reward.items()}}
        parts = [f"--{key.replace('_', '-')} {value}" for key, value in changes.items()]
        usual: Data = "hard" if self.parent else "selected"
        return ", ".join([self.preset, *parts, *([_DATA[self.data]] if self.data != usual else [])])


def _stage2(data: Data = "hard", **reward: Any) -> Arm:
    return Arm(preset="stage2", parent="stage1", data=data, reward=reward)


GAP = {
    "baseline": Arm(preset="baseline"),
    "baseline-matched": Arm(preset="baseline-matched", parent="baseline", data="hard"),
    "stage1": Arm(preset="stage1"),
    "stage1-continued": Arm(preset="stage1-continued", parent="stage1", data="hard"),
    "random-budget": Arm(preset="random-budget"),
    **{
        f"fixed-{budget}": Arm(preset="stage1-fixed-budget", change={"fixed_budget": budget})
        for budget in (25, 64, 144)
    },
    "information": Arm(preset="information"),
    "stage1-information": Arm(preset="stage1-information"),
    "selection-lower": Arm(preset="stage1", data="lower"),
    "selection-higher": Arm(preset="stage1", data="higher"),
    "selection-some-full": Arm(preset="stage1", data="some-full"),
}
"""What the information gap does: with and without it, by selection or by simpler rules, at equal
steps and samples; and what paying for what a crop told does, in its place and beside it."""
GROUNDING = {
    "stage1": Arm(preset="stage1"),
    "stage1-continued": Arm(preset="stage1-continued", parent="stage1", data="hard"),
    "stage2": _stage2(),
    "stage2-no-l1": _stage2(iou_weight=1.0),
    "stage2-l1-box": _stage2(l1_scale="box"),
    "stage2-plain-iou": _stage2(iou_weight=1.0, guarded=False),
    "stage2-gated": _stage2(gate_grounding=True),
    "stage2-area": _stage2(grounding=0.0, area_cost=2.0),
    "stage1-continued-easy": Arm(preset="stage1-continued", parent="stage1"),
    "stage2-easy-data": _stage2("selected"),
    "stage2-easy-no-l1": _stage2("selected", iou_weight=1.0),
}
"""What each form of the grounding reward adds to the same Stage I, on hard and on easy samples."""
LAZINESS = {
    "baseline": Arm(preset="baseline", change={"keep": 100}),
    "stage1": Arm(preset="stage1", change={"keep": 100}),
}
"""Whether training at equal resolution makes a policy lazy: dependence every 20 steps."""
CLAIMS = {
    **{
        name: GAP[name]
        for name in ("baseline", "baseline-matched", "stage1", "stage1-continued", "random-budget")
    },
    **{name: GROUNDING[name] for name in ("stage2", "stage2-l1-box")},
}
"""The paper's claims, each beside the arm that could explain it away."""
DEMO = {
    name: CLAIMS[name]
    for name in ("baseline", "stage1", "baseline-matched", "stage1-continued", "stage2")
}
"""Both stages beside the same steps and samples without them."""
GROUPS: Mapping[str, Mapping[str, Arm]] = {
    "claims": CLAIMS,
    "gap": GAP,
    "grounding": GROUNDING,
    "laziness": LAZINESS,
}


def described(arms: Mapping[str, Arm]) -> dict[str, str]:
    """Texts of the arms that are no presets."""
    return {name: arm.text for name, arm in arms.items() if name not in PRESETS}
