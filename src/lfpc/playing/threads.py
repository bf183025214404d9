"""Work in several threads, such as decoding pictures, with results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = min(8, os.cpu_count() or 1)
"""Number of threads that decode, hash and copy pictures."""
T = TypeVar("T")
R = TypeVar("R")


def in_order(
    threads: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], window: int
) -> Iterator[R]:
    """Results of `work` on every item, in order, with at most `window` items in progress."""
    running: deque[Future[R]] = deque()
    for item in items:
        running.append(threads.submit(work, item))
        if len(running) >= window:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
