"""A run on this machine's device: settings that fit its memory, and the estimate of a dry run."""

import logging
from dataclasses import replace

import torch

from lfpc.policies.devices import device_gib, placed, precision
from lfpc.training.config import MICRO_BATCH_TOKENS, TrainConfig
from lfpc.training.memory import (
    GPU_GIB,
    USABLE,
    advice,
    fitted,
    report,
    sampler_share,
    update_gib,
)
from lfpc.training.resume import described_init
from lfpc.training.verl.clusters import Cluster
from lfpc.training.verl.estimate import Preview, assumption, shape_of_run
from lfpc.training.verl.shape import shape_of_checkpoint

log = logging.getLogger(__name__)


def pick_device(config: TrainConfig) -> torch.device:
    """The device of `config`; also sets the CPU threads."""
    if config.threads:
        torch.set_num_threads(config.threads)
    return placed(config)[0]


def fitted_to(config: TrainConfig, device: torch.device) -> TrainConfig:
    """The run with settings of the update that fit `device`; unchanged on the CPU. A run that does
    not fit is warned about.
    """
    if device.type == "cpu":
        return config
    shape = shape_of_checkpoint(described_init(config))
    gib = config.gpu_memory or device_gib(device) or GPU_GIB
    half = precision(config, device) == torch.bfloat16
    config = fitted(config, shape, gib, half=half)
    if config.sampler == "vllm":
        share = sampler_share(shape, config, gib, half=half)
        config = replace(config, vllm=replace(config.vllm, gpu_share=share))
    tokens = config.micro_batch_tokens or MICRO_BATCH_TOKENS
    needed = update_gib(
        shape, config, tokens, half=half, checkpointing=bool(config.gradient_checkpointing)
    )
    if needed > USABLE * gib:
        log.warning(
            "an update needs about %.0f GiB of %.0f; use %s",
            needed,
            gib,
            ", ".join(advice(config, half=half)),
        )
    return config


def preview(config: TrainConfig, cluster: Cluster) -> Preview:
    """The estimate of a run on this machine's device, or on a GPU of --gpu-memory.

    Args:
        config: the run; without its checkpoint, the model is `cluster.model`.
        cluster: speeds of the GPU.
    """
    device, dtype = placed(config)
    with_gpu = device.type != "cpu" or config.device == "auto"
    gib = config.gpu_memory or device_gib(device) or GPU_GIB
    half = dtype == torch.bfloat16 or (with_gpu and config.dtype == "auto")
    found = report(config, shape_of_run(config, cluster), gib, half=half, cluster=cluster)
    return replace(found, text=assumption(config, cluster) + found.text)
