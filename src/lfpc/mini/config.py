"""Sizes and recipes of the miniature: the demo, and the base checkpoint's training. Torch-free, and
read by the command line.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lfpc.errors import ConfigError
from lfpc.options import NotAnOption

ARMS = ("baseline", "stage1", "stage2")
ABLATIONS = ("stage1-fixed-budget", "stage2-easy-data", "stage2-no-l1", "stage2-plain-iou")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """The demo's size. Defaults fit a laptop; several seeds are the full version."""

    out: Path = Path("out/demo")
    """Folder for everything; an existing demo is continued."""
    seeds: int = 1
    """Training runs per arm; with several, also 500 questions and the ablations."""
    questions: int | None = None
    """Held-out questions. Default: 160 with one seed, 500 with several."""
    split: Literal["test", "hard-test", "transfer"] = "hard-test"
    """Scenes of the held-out questions: those of `hard-test` have smaller marks and more
    distractors than Stage I's."""
    ablations: bool | None = None
    """Whether to run the paper's ablations. Default: with several seeds."""
    base: Path | None = None
    """Checkpoint to start from. Default: the one in the package."""
    steps: int = 80
    """Steps of the baseline and of Stage I."""
    stage2_steps: int = 80
    """Further steps of Stage II, from Stage I's checkpoint."""
    train_samples: int = 320
    """Training questions of the baseline and Stage I."""
    hard_samples: int = 768
    """Hard training questions of Stage II, with truth boxes."""
    small: NotAnOption[int] = 25
    """Visual tokens of the small budget."""
    full: NotAnOption[int] = 256
    """Visual tokens of the full budget: the original's resolution."""
    ladder: tuple[int, ...] = (256, 36, 25)
    """Levels of resolution selection, in visual tokens."""
    # The base checkpoint has seen pictures of these sizes. Without 64: most hard samples would be
    # trained there, while the small budget is `small`.
    learning_rate: float = 3e-4
    """Peak AdamW learning rate of every run."""
    temperature: NotAnOption[float] = 0.6
    """Sampling temperature in training. The base spreads its corners widely; at 1 their noise
    drowns what an answer could teach."""
    processes: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    """Runs trained or evaluated side by side, each with its share of the cores; by default one per
    core, at most 4. Small models gain nothing from more threads."""

    def __post_init__(self) -> None:
        for name in (
            "seeds",
            "steps",
            "stage2_steps",
            "train_samples",
            "hard_samples",
            "processes",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def asked(self) -> int:
        """Held-out questions."""
        return self.questions or (160 if self.seeds == 1 else 500)

    @property
    def arms(self) -> tuple[str, ...]:
        """What is trained, in this order."""
        with_ablations = self.seeds > 1 if self.ablations is None else self.ablations
        return ARMS + (ABLATIONS if with_ablations else ())


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """The base checkpoint's training."""

    out: Path = Path("out/mini-base")
    """Folder of the training state and curves, and at the end of `checkpoint/`."""
    init: Path | None = None
    """Checkpoint whose weights a new run starts from. Default: fresh weights."""
    dense_steps: int = 6000
    """Steps of the vision phase."""
    dialogue_steps: int = 10_000
    """Steps of the language phase."""
    settle_steps: int = 4000
    """Steps of the last phase, which teaches not to trust crops."""
    dense_share: NotAnOption[float] = 0.2
    """Share of the later phases' steps with the dense targets."""
    learning_rate: float = 1e-3
    """Peak AdamW learning rate of a phase: linear warm-up over 100 steps, then cosine to a
    tenth."""
    settle_rate: float = 0.5
    """Learning rate of the last phase as a share of the others': the rate of a fresh start would
    undo what was learnt."""
    scenes: NotAnOption[int] = 4000
    """Distinct pictures drawn from."""
    hit: float = 0.3
    """Share of two-picture dialogues whose crop is about the right object."""
    contradict: float = 0.2
    """Share, in the last phase, whose crop shows a lookalike from another picture, so that only the
    global picture is right."""
    unreadable: float = 0.0
    """Share whose global picture is too small to read, so that only the crop can be right."""
    workers: int = 1
    """Processes that train the same weights, a thread each: about as many times faster, but no
    longer bit-identical between runs."""
    seed: int = 0
    """Seed of weights and batches."""
    save_every: NotAnOption[int] = 200
    """Steps between states on disk."""

    @property
    def phases(self) -> dict[str, int]:
        """Steps of every phase, in their order."""
        return {
            "dense": self.dense_steps,
            "dialogue": self.dialogue_steps,
            "settle": self.settle_steps,
        }
