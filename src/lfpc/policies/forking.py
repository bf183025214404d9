"""How processes start that hold a model."""

import multiprocessing
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext


def model_context(*, cuda: bool) -> "BaseContext":
    """How processes start that compute with a model in them.

    Loading torch and transformers takes them five seconds each. On Linux and CPUs a server loads
    both once and forks the processes. CUDA does not survive a fork, so with it each loads its own.

    Args:
        cuda: whether any of them may use CUDA.
    """
    if cuda or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["lfpc.policies.qwen.checkpoint"])
    return forking
