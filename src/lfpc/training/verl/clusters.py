"""The machines of a run, and presets for common hardware.

A hardware preset is independent of the experiment: `lfpc train stage1 --engine verl --hardware
node4` is Stage I on four GPUs. Its batch, precision and lengths are the paper's, unless the
hardware is too small for them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from lfpc.errors import ConfigError
from lfpc.training.config import TrainConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Machines and their use. They change speed and memory, not results."""

    nodes: int = 1
    """Number of machines; join several with `ray start` first."""
    gpus_per_node: int = 8
    """GPUs per machine."""
    gpu_gib: float = 80.0
    """Memory of one GPU, for the estimate."""
    host_gib: float = 1000.0
    """Memory of one machine, for the estimate."""
    gpu_tflops: float = 312.0
    """bfloat16 peak of one GPU in TFLOP/s, for the estimate: 312 for an A100, 989 for an H100."""
    gpu_tbps: float = 2.0
    """Memory bandwidth of one GPU in TB/s, for the estimate: 2.0 for an A100, 3.35 for an H100."""
    model: Literal["7B", "3B"] = "7B"
    """Size of Qwen2.5-VL for the estimate, if the checkpoint is not available."""
    tensor_parallel: int = 1
    """GPUs per copy of the sampling model."""
    sampling_share: float = 0.6
    """Share of a GPU's memory for vLLM during sampling."""
    tokens_per_gpu: int | None = None
    """Tokens of a micro-batch on one GPU. Default and minimum: --max-rollout-tokens. More is faster
    and needs more memory."""
    offload: bool = True
    """Offload weights and optimiser to the machine's memory during sampling."""
    checkpointing: bool = True
    """Activation checkpointing: compute activations again in the backward pass."""
    padding_free: bool = True
    """Pack rollouts without padding, which needs flash attention. Otherwise they are padded, with
    torch's attention."""
    workers: int = 8
    """Processes that play episodes (decoding, cropping, tokenising). Each caches up to 2 GiB of
    pictures."""
    rollout: str = "vllm"
    """verl's rollout engine."""
    stop_at: int | None = None
    """Stop after this step, for queues with a time limit; the same command without it resumes."""
    verl: tuple[str, ...] = ()
    """Further settings of verl as KEY=VALUE (+KEY=VALUE for an unlisted key); they override all
    others."""

    def __post_init__(self) -> None:
        for name in ("nodes", "gpus_per_node", "tensor_parallel", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`cluster.{name}` must be at least 1, got {getattr(self, name)}")
        if not 0 < self.sampling_share < 1:
            raise ConfigError(
                f"`cluster.sampling_share` must lie between 0 and 1, got {self.sampling_share}"
            )
        if self.gpus % self.tensor_parallel:
            raise ConfigError(
                f"{self.gpus} GPUs are not divisible by --cluster.tensor-parallel "
                f"{self.tensor_parallel}"
            )
        for setting in self.verl:
            if "=" not in setting:
                raise ConfigError(f"--cluster.verl takes KEY=VALUE, got {setting!r}")

    def micro_batch_tokens(self, config: TrainConfig) -> int:
        """Tokens of a micro-batch on one GPU."""
        return max(self.tokens_per_gpu or 0, config.max_rollout_tokens)

    @property
    def gpus(self) -> int:
        """Number of GPUs of all machines."""
        return self.nodes * self.gpus_per_node


LONG = 24576
"""Token limit of a rollout with a first view of 16,384 visual tokens."""


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
"""Name -> (description, adaptation of a run, machines)."""


def hardware(name: str, config: TrainConfig) -> tuple[TrainConfig, Cluster]:
    """The run `config` adapted to the hardware preset `name`, and the machines.

    Raises:
        ConfigError: unknown preset; the message lists the known ones, with the nearest as a hint.
    """
    if name not in HARDWARE:
        near = get_close_matches(name, HARDWARE, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown hardware {name!r}{hint} (known: {', '.join(HARDWARE)})")
    _, fit, cluster = HARDWARE[name]
    return fit(config), cluster
