"""Devices of models in this process: which one, in which precision, and what to do when its memory
is full.
"""

import gc

import torch

from lfpc.errors import ConfigError, first_line
from lfpc.policies.backends import Placement

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def placed(placement: Placement) -> tuple[torch.device, torch.dtype]:
    """The device and the precision that `placement` names.

    Raises:
        ConfigError: the device is unavailable.
    """
    name = placement.device
    if "," in name:
        raise ConfigError(f"`device` {name}: this command uses one device; name one of them")
    if name == "auto":
        gpu = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        name = "cpu" if gpu is None else gpu.type
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"`device` {name} is unavailable: {first_line(error)}") from error
    return device, precision(placement, device)


def precision(placement: Placement, device: torch.device) -> torch.dtype:
    """The precision of matrix products on `device`."""
    if placement.dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return torch.bfloat16 if placement.dtype == "bfloat16" else torch.float32


def device_gib(device: torch.device) -> float | None:
    """Memory of a GPU in GiB; None: unknown."""
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory / 2**30


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that the memory is full; the CPU and some backends have no exception of
    their own.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _NO_MEMORY)
    )


def release_memory() -> None:
    """Return the memory of dropped tensors to the device. Call it outside `except`, whose exception
    keeps the tensors of the failed call.
    """
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
