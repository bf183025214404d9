"""Faults of a step on this machine that end a run with a sentence: no memory, infinite weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch

from lfpc.errors import RunError, first_line
from lfpc.policies.devices import out_of_memory
from lfpc.training.config import TrainConfig

_TURN_DOWN = {
    "playing": ("sample_batch", "batch_tokens"),
    "updating": ("micro_batch", "micro_batch_tokens"),
}


@contextmanager
def out_of_memory_explained(
    doing: Literal["playing", "updating"], config: TrainConfig
) -> Iterator[None]:
    """Turn an error about memory into a RunError that names the options to turn down."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's own is a RuntimeError
        if not out_of_memory(error):
            raise
        rows, tokens = _TURN_DOWN[doing]
        options = (
            f"--{rows.replace('_', '-')} (now {getattr(config, rows)}) or "
            f"--{tokens.replace('_', '-')}"
        )
        if doing == "playing" and config.sampler == "vllm":
            options = f"--gpu-share (now {config.vllm.gpu_share})"
        raise RunError(
            f"{config.out}: out of memory while {doing} ({first_line(error)}); lower {options}, "
            f"then --crop.max-tokens or --max-rollout-tokens"
        ) from error


def check_finite(weights: Sequence[torch.Tensor], config: TrainConfig, step: int) -> None:
    """Check the weights after an update.

    Raises:
        RunError: NaN or infinity among them.
    """
    with torch.no_grad():
        norm = torch.nn.utils.get_total_norm(weights)
    if not bool(norm.isfinite()):
        raise RunError(
            f"{config.out}: step {step} made weights that are not finite and are not saved; lower "
            f"--learning-rate (now {config.learning_rate:g}) or --max-grad-norm (now "
            f"{config.max_grad_norm:g})"
        )
