"""What a training run is. An ablation is `dataclasses.replace(config, ...)`; see `presets`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lfpc.errors import ConfigError
from lfpc.images import CropRules
from lfpc.protocols import PROTOCOLS, ChatProtocol
from lfpc.rewards import RewardConfig

Aggregation = Literal["token-mean", "sequence-mean"]
"""Whether every token of a step counts the same, or every rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters (through peft) in place of training every weight."""

    rank: int = 16
    """Inner width of an adapter."""
    alpha: int = 32
    """Scale: an adapter's output is multiplied by alpha / rank."""
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Linear layers that get an adapter; in the vision tower too, where they have these names."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not self.targets:
            raise ConfigError(
                f"lora needs rank >= 1, alpha > 0 and at least one target, got {self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run of reinforcement learning, from a checkpoint and a samples folder to a checkpoint."""

    data: Path = Path("data")
    """Samples folder to train on."""
    init: Path = Path("checkpoint")
    """Checkpoint to start from."""
    out: Path = Path("out/train")
    """Run folder; a run that is there already is continued."""
    validation: Path | None = None
    """Samples folder for validation; None: no validation, and no best checkpoint."""

    first_view: Literal["selected", "original", "fixed"] = "selected"
    """Budget of the first view: each sample's own `budget` (the information gap), the original's
    resolution, or one for all."""
    fixed_budget: int = 1024
    """Visual tokens of every first view, with first_view=fixed."""
    original_budget: int = 16384
    """Most visual tokens of a first view at the original's resolution, with first_view=original."""
    crop: CropRules = field(default_factory=CropRules)
    """How a crop becomes a picture."""
    protocol: str = "qwen2_5_vl"
    """What the policy reads and writes; a name in lfpc.protocols."""
    max_turns: int = 6
    """Replies an episode may have."""

    prompts_per_step: int = 8
    """Questions a step."""
    group_size: int = 8
    """Rollouts of every question; their rewards are compared with each other."""
    steps: int = 80
    """Steps of the run."""
    updates_per_batch: int = 1
    """Optimiser updates with the rollouts of one step; from the second on, clipping matters."""
    micro_batch: int = 64
    """Rollouts that go through the language model together in an update; less needs less memory and
    changes nothing else."""
    max_tokens: int = 8192
    """Longer rollouts are not trained on; they are counted as `overlong`."""

    learning_rate: float = 1e-6
    """Of AdamW."""
    warmup: int = 0
    """Steps in which the learning rate grows linearly to its value."""
    decay: bool = False
    """Whether the learning rate then falls linearly, to reach 0 after the last step; False: it
    stays."""
    weight_decay: float = 0.0
    """Of AdamW."""
    clip: float = 0.2
    """The policy ratio is clipped to [1 - clip, 1 + clip]."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this norm."""
    aggregation: Aggregation = "token-mean"
    """token-mean: every token of the step counts the same. sequence-mean: every rollout counts the
    same."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """Weights of the reward's terms."""

    temperature: float = 1.0
    """Of sampling, and of the trained log-probabilities."""
    max_new_tokens: int = 512
    """Tokens a reply may have."""
    sample_batch: int = 64
    """Rollouts that are sampled together."""
    share: bool = True
    """Pictures and prompts that rollouts share are computed once; False computes each by itself
    (same numbers, for comparison)."""

    seed: int = 0
    """Of the order of questions and of sampling."""
    lora: LoraConfig | None = None
    """Train low-rank adapters only; None: all weights."""
    freeze_vision: bool = False
    """Leave the vision tower as it is."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: matrix products in bfloat16, weights and optimiser in float32. For GPUs; most CPUs
    are slower with it."""
    device: str = "auto"
    """auto: the GPU if there is one; else a torch device name."""
    threads: int = 0
    """CPU threads; 0: torch's own choice."""

    save_every: int = 10
    """Steps between checkpoints (the last step always has one)."""
    keep: int = 2
    """Checkpoints that are kept, besides the best one."""
    validate_every: int = 10
    """Steps between validations."""
    validation_size: int = 128
    """Validation samples that are played, from the start of the file."""
    log_episodes: int = 4
    """Episodes of every step that are written to episodes.jsonl."""

    def __post_init__(self) -> None:
        _at_least(
            self,
            1,
            "fixed_budget",
            "original_budget",
            "max_turns",
            "prompts_per_step",
            "steps",
            "updates_per_batch",
        )
        _at_least(
            self,
            1,
            "micro_batch",
            "max_tokens",
            "max_new_tokens",
            "sample_batch",
            "save_every",
            "keep",
            "validate_every",
        )
        _at_least(self, 0, "warmup", "weight_decay", "threads", "log_episodes", "learning_rate")
        _at_least(self, 1, "validation_size")
        _at_least(self, 2, "group_size")
        for name in ("temperature", "clip", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        for name, known in (
            ("first_view", ("selected", "original", "fixed")),
            ("aggregation", ("token-mean", "sequence-mean")),
            ("dtype", ("float32", "bfloat16")),
            ("protocol", tuple(PROTOCOLS)),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        if self.crop.factor != self.chat.factor:
            raise ConfigError(
                f"crop.factor is {self.crop.factor}, but a visual token of {self.protocol} "
                f"is {self.chat.factor} pixels wide"
            )

    @property
    def chat(self) -> ChatProtocol:
        """The protocol by its name."""
        return PROTOCOLS[self.protocol]

    def first_budget(self, selected: int) -> int:
        """Most visual tokens of the first view of a sample for which selection chose `selected`."""
        return {"selected": selected, "original": self.original_budget, "fixed": self.fixed_budget}[
            self.first_view
        ]


def _at_least(config: TrainConfig, least: int, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= least:
            raise ConfigError(f"{name} must be at least {least}, got {getattr(config, name)}")
