"""A cache bounded by bytes, for values that are costly to make and large to keep. Threads may share
it.
"""

from collections.abc import Callable
from threading import Condition
from typing import ParamSpec, TypeVar

from cachetools import LRUCache, cached

P = ParamSpec("P")
V = TypeVar("V")


def byte_cache(
    max_bytes: int, size: Callable[[V], int]
) -> Callable[[Callable[P, V]], Callable[P, V]]:
    """Decorate a function of hashable arguments so that its last values are kept, up to `max_bytes`
    together.

    A value larger than `max_bytes` is not kept, and what the function raises is not remembered.
    Threads that ask for the same value at once share one making of it.

    Args:
        max_bytes: bound of all kept values together.
        size: bytes of a value.
    """
    return cached(LRUCache(max_bytes, size), condition=Condition())
