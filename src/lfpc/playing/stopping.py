"""SIGTERM as an exception: what queues send some seconds before they take the machine away.

The exception ends commands as Ctrl-C does, with their clean-up. `held` lets a piece of work that
must not be left half done finish first.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """This process was told to end by SIGTERM. As a SystemExit it passes event loops unchanged."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


_holds = 0
_waiting = False


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Inside the block the first SIGTERM raises Terminated in the main thread; later ones do
    nothing. No change in other threads, or if somebody else already handles the signal.
    """
    global _waiting
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    _waiting = False
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def held() -> Iterator[None]:
    """Inside the block SIGTERM waits; at its end Terminated is raised."""
    global _holds
    _holds += 1
    try:
        yield
    finally:
        _holds -= 1
    if _waiting and not _holds:
        _raise()


@contextmanager
def interruptible() -> Iterator[None]:
    """A part of a `held` block in which SIGTERM raises at once."""
    global _holds
    outer = _holds
    _holds = 0
    try:
        if _waiting:
            _raise()
        yield
    finally:
        _holds = outer


def _on_sigterm(number: int, frame: object) -> None:
    global _waiting
    if _holds:
        _waiting = True
    else:
        _raise()


def _raise() -> None:
    global _waiting
    _waiting = False
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
