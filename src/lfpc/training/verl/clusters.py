"""On what a run computes, and presets for common hardware.

A preset of hardware is independent of the experiment:
`lfpc train stage1 --engine verl --hardware node4` is Stage I on four GPUs. What it says about the
run itself (batch, precision, lengths) is the paper's, unless the hardware is too small for that.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from lfpc.errors import ConfigError
from lfpc.training.config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Machines and how they are used. Changes how fast a run is and what fits, not what it
    computes.
    """

    nodes: int = 1
    """Machines; several are joined with `ray start` before."""
    gpus_per_node: int = 8
    """GPUs of each."""
    gpu_gib: float = 80.0
    """Memory of one GPU, for the estimate."""
    host_gib: float = 1000.0
    """Memory of one machine, for the estimate."""
    gpu_tflops: float = 312.0
    """bfloat16 peak of one GPU in TFLOP/s, for the estimate: 312 for an A100, 989 for an H100."""
    gpu_tbps: float = 2.0
    """Memory bandwidth of one GPU in TB/s, for the estimate: 2.0 for an A100, 3.35 for an H100."""
    model: Literal["7B", "3B"] = "7B"
    """Qwen2.5-VL of this size is what the estimate is for, where the checkpoint is not there to be
    looked at."""
    tensor_parallel: int = 1
    """GPUs that hold one copy of the sampling model together."""
    sampling_share: float = 0.6
    """Share of a GPU's memory that vLLM takes while it samples."""
    tokens_per_gpu: int | None = None
    """Tokens of a micro-batch on one GPU, at least the run's `max_rollout_tokens`, which is the
    default. More is faster and needs more memory."""
    offload: bool = True
    """Whether weights and optimiser wait in the machine's memory while vLLM samples."""
    checkpointing: bool = True
    """Whether activations are computed again in the backward pass in place of being kept."""
    padding_free: bool = True
    """Whether rollouts are packed without padding, which needs flash attention; False: padded, with
    torch's own attention."""
    workers: int = 8
    """Processes that play episodes: decoding, cropping, tokenising. Each keeps up to 2 GiB of
    pictures."""
    rollout: str = "vllm"
    """verl's rollout engine."""
    stop_at: int | None = None
    """Stop after this step; the same command without it goes on. For queues with a time limit."""
    verl: tuple[str, ...] = ()
    """Further settings of verl as KEY=VALUE (+KEY=VALUE for a key it does not know); they win."""

    def __post_init__(self) -> None:
        for name in ("nodes", "gpus_per_node", "tensor_parallel", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.sampling_share < 1:
            raise ConfigError(f"sampling_share must lie between 0 and 1, got {self.sampling_share}")
        if self.gpus % self.tensor_parallel:
            raise ConfigError(
                f"{self.gpus} GPUs cannot be shared out among copies of "
                f"{self.tensor_parallel} (tensor_parallel)"
            )
        for setting in self.verl:
            if "=" not in setting:
                raise ConfigError(f"a setting of verl is written KEY=VALUE, got {setting!r}")

    def micro_batch_tokens(self, config: TrainConfig) -> int:
        """Tokens that one GPU trains on together."""
        return max(self.tokens_per_gpu or 0, config.max_rollout_tokens)

    @property
    def gpus(self) -> int:
        """All GPUs."""
        return self.nodes * self.gpus_per_node


LONG = 24576
"""Tokens of a rollout whose first view is the original at 16,384 visual tokens."""


def _paper(config: TrainConfig) -> TrainConfig:
    longest = LONG if config.first_view == "original" else 16384
    return replace(
        config,
        prompts_per_step=256,
        group_size=16,
        steps=80,
        learning_rate=1e-6,
        max_new_tokens=2048,
        max_rollout_tokens=longest,
        dtype="bfloat16",
    )


def _small(config: TrainConfig) -> TrainConfig:
    longest = LONG if config.first_view == "original" else 8192
    return replace(
        _paper(config),
        prompts_per_step=64,
        group_size=8,
        max_new_tokens=1024,
        max_rollout_tokens=longest,
    )


HARDWARE: dict[str, tuple[str, Callable[[TrainConfig], TrainConfig], Cluster]] = {
    "paper": (
        "the paper's: 7B on one node of 8 GPUs of 80 GB, 256 questions x 16 rollouts a step",
        _paper,
        Cluster(),
    ),
    "node4": (
        "one node of 4 GPUs of 80 GB: the paper's run, at half the speed",
        _paper,
        Cluster(gpus_per_node=4, host_gib=500.0, workers=4),
    ),
    "gpu1": (
        "one GPU of 80 GB: a 3B model, 64 questions x 8 rollouts a step",
        _small,
        Cluster(gpus_per_node=1, host_gib=200.0, sampling_share=0.5, workers=4, model="3B"),
    ),
    "nodes2": (
        "two nodes of 8 GPUs of 80 GB: the paper's run, at twice the speed",
        _paper,
        Cluster(nodes=2, workers=16),
    ),
}
"""Name -> what it is for, what it makes of a run, and the machines."""


def hardware(name: str, config: TrainConfig) -> tuple[TrainConfig, Cluster]:
    """The run `config` as fits the hardware called `name`, and the machines.

    Raises:
        ConfigError: there is no such preset; the known names are listed, the nearest first.
    """
    if name not in HARDWARE:
        near = get_close_matches(name, HARDWARE, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown hardware {name!r}{hint} (known: {', '.join(HARDWARE)})")
    _, fit, cluster = HARDWARE[name]
    return fit(config), cluster
