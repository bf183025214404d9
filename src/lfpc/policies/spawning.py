"""How processes start that work for this one."""

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that multiprocessing spawns in this block do not import `__main__`.

    They would run a script without the guard `if __name__ == "__main__"` from its first line, with
    the call that starts them. What they unpickle must come from other modules.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")  # without a file to run
    try:
        yield
    finally:
        sys.modules["__main__"] = main


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
