"""Configurations of the demo and of the base checkpoint's training. Torch-free, and read by the
command line.
"""

import os
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import ClassVar, Literal

from lfpc.errors import ConfigError
from lfpc.options import NotAnOption
from lfpc.selection.config import SelectConfig

FACTOR = 28
"""Side of the miniature's visual tokens, in pixels."""


def _check_budget(budget: int, name: str) -> None:
    from lfpc.images import check_budget  # here: `lfpc --help` opens no picture

    check_budget(budget, FACTOR, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmsConfig:
    """What the demo and the study share: arms trained from one base on scenes of a wide range."""

    out: Path = Path("out")
    """Folder for all results; what is there is not repeated."""
    base: Path | None = None
    """Checkpoint to start from. Default: the base checkpoint in the package."""
    steps: int = 40
    """Training steps of every arm; a continued arm has as many again."""
    train_samples: int = 640
    """Number of training samples."""
    hard_samples: int = 768
    """Number of hard training samples, with truth boxes."""
    ladder: tuple[int, ...] = (256, 144, 64, 36, 25)
    """Ladder of resolution selection, in visual tokens."""
    learning_rate: float = 3e-4
    """Peak AdamW learning rate of every run."""
    temperature: NotAnOption[float] = 0.6
    """Sampling temperature in training. At 1 the base checkpoint's corners are too noisy to learn
    from."""
    processes: int | None = None
    """Number of parallel runs, each with its share of the cores. Default: one per core, at most 4;
    small models gain nothing from more threads."""

    def __post_init__(self) -> None:
        for name in ("questions", "seeds", "steps", "train_samples", "hard_samples", "processes"):
            value = getattr(self, name, None)
            if value is not None and value < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {value}")
        if not 0 <= self.learning_rate < inf:
            raise ConfigError(f"`learning_rate` must be at least 0, got {self.learning_rate}")
        SelectConfig(ladder=self.ladder)
        _check_budget(self.ladder[-1], "the last budget of `ladder`")

    @property
    def counts(self) -> dict[str, int]:
        """Number of training samples by split."""
        return {"wide": self.train_samples, "wide-hard": self.hard_samples}

    @property
    def full(self) -> int:
        """Visual tokens of the full budget, the original's resolution."""
        return self.ladder[0]

    @property
    def parallel(self) -> int:
        """Number of parallel runs."""
        return self.processes or min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig(ArmsConfig):
    """Configuration of the demo. The defaults fit a laptop; `lfpc mini study` has several seeds."""

    FIRST: ClassVar = ("out", "questions", "split", "seed")
    out: Path = Path("out/demo")
    """Folder for all results; an existing demo continues."""
    questions: int = 100
    """Held-out questions."""
    split: Literal["wide-test", "wide-large"] = "wide-test"
    """Split of the held-out questions. wide-large: originals of four times the full budget."""
    steps: int = 30
    """Training steps of every arm; a continued arm has as many again."""
    train_samples: int = 240
    """Number of training samples."""
    hard_samples: int = 240
    """Number of hard training samples, with truth boxes."""
    seed: int = 0
    """Training seed."""

    def __post_init__(self) -> None:
        super(DemoConfig, self).__post_init__()
        if self.seed < 0:
            raise ConfigError(f"`seed` must be at least 0, got {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig(ArmsConfig):
    """Configuration of the study: one group of arms over several training seeds."""

    FIRST: ClassVar = ("out", "group", "seeds", "first_seed", "questions", "split", "budgets")
    out: Path = Path("out/study")
    """Folder for all results; an existing study continues. laziness needs a folder of its own."""
    group: Literal["claims", "gap", "grounding", "laziness"] = "claims"
    """Arms to train. claims: each stage beside the arm that could explain its effect; gap:
    budgets dealt by selection or simpler rules; grounding: forms of Stage II's reward; laziness:
    crop dependence over the steps of training."""
    seeds: int = 8
    """Training runs per arm."""
    first_seed: int = 100
    """First training seed. Seeds below 100 were used to choose settings."""
    questions: int = 300
    """Held-out questions."""
    split: Literal["wide-validation", "wide-test", "wide-large"] = "wide-test"
    """Split of the questions. wide-validation: to choose on; wide-test: to report on; wide-large:
    originals of four times the full budget."""
    budgets: tuple[int, ...] = (25, 64, 144, 256)
    """First-view budgets to evaluate, in visual tokens, ascending."""

    def __post_init__(self) -> None:
        super(StudyConfig, self).__post_init__()
        if self.first_seed < 0:
            raise ConfigError(f"`first_seed` must be at least 0, got {self.first_seed}")
        if len(self.budgets) < 2 or any(b <= a for a, b in pairwise(self.budgets)):
            raise ConfigError(f"`budgets` must be at least two rising budgets, got {self.budgets}")
        _check_budget(self.budgets[0], "the first budget of `budgets`")


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Configuration of the base checkpoint's training."""

    out: Path = Path("out/mini-base")
    """Folder for training state, curves and finally `checkpoint/`."""
    init: Path | None = None
    """Checkpoint to start from. Default: fresh weights."""
    dense_steps: int = 6000
    """Steps of the vision phase."""
    dialogue_steps: int = 10_000
    """Steps of the language phase."""
    settle_steps: int = 4000
    """Steps of the last phase, which reduces the trust in crops."""
    dense_share: NotAnOption[float] = 0.2
    """Share of steps with dense targets in the later phases."""
    learning_rate: float = 1e-3
    """Peak AdamW learning rate of a phase: linear warm-up over 100 steps, then cosine to a
    tenth."""
    settle_rate: float = 0.5
    """Learning rate of the last phase as a share of the others'; the full rate would undo earlier
    learning."""
    scenes: NotAnOption[int] = 4000
    """Number of distinct pictures."""
    hit: float = 0.3
    """Share of two-picture dialogues with a crop of the right object."""
    contradict: float = 0.2
    """Share of two-picture dialogues in the last phase with a crop of a lookalike from another
    picture, so that only the global picture is right."""
    unreadable: float = 0.0
    """Share of two-picture dialogues with an unreadable global picture, so that only the crop is
    right."""
    wide: bool = False
    """Marks of 12 to 52 pixels in place of 13 to 23, and calls and crops at every budget."""
    spread: float = 0.12
    """Imprecision of demonstrated boxes: standard deviation of the centre, in sides of the
    object."""
    zoom: float = 2.0
    """Median side of demonstrated boxes, in sides of the object."""
    workers: int = 1
    """Processes that train the same weights, one thread each. Speed grows almost linearly, but runs
    are no longer bit-identical."""
    seed: int = 0
    """Seed of weights and batches."""
    save_every: NotAnOption[int] = 200
    """Steps between saved states."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"`seed` must be at least 0, got {self.seed}")

    @property
    def phases(self) -> dict[str, int]:
        """Steps of each phase, in order."""
        return {
            "dense": self.dense_steps,
            "dialogue": self.dialogue_steps,
            "settle": self.settle_steps,
        }
