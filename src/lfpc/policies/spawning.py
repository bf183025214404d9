"""How processes start that work for this one."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import ModuleType
from typing import TYPE_CHECKING

from lfpc.errors import ConfigError

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


@contextmanager
def sending(what: str, instead: str) -> Iterator[None]:
    """`without_main`; what does not pickle in this block is an error in one sentence.

    A process that cannot unpickle what it gets, such as an instance of a class of `__main__`, ends
    at once, as if it had been killed. Pickling it in this block tells the cause.

    Args:
        what: what is sent, in the plural.
        instead: what to do without other processes.
    Raises:
        ConfigError: it does not pickle.
    """
    try:
        with without_main():
            yield
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{what} cannot be sent to worker processes: {error}; use plain values, define their "
            f"class in a module that can be imported, or {instead}"
        ) from error


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


def be_worker() -> None:
    """Let this process, started by multiprocessing, end silently on Ctrl-C, unless its parent
    ignores that, and end with its parent.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()


def end_with_parent() -> None:
    """End this process, started by multiprocessing, as soon as its parent has ended, even if that
    was killed.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
