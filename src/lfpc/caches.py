"""A cache bounded by bytes, for values that are costly to make and large to keep. Threads may share
it.

A path stands for the file as it is: once the file was replaced, its values are made again.
"""

import os
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Condition
from typing import Any, ParamSpec, TypeVar

from cachetools import LRUCache, cached
from cachetools.keys import hashkey

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
    return cached(LRUCache(max_bytes, size), key=_key, condition=Condition())


def file_state(path: Path) -> tuple[int, ...]:
    """Changes with the content of the file, also where a copy keeps the time of the last writing;
    empty if there is none.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _key(*args: Any, **kwargs: Any) -> Hashable:
    states = tuple(
        file_state(value) for value in (*args, *kwargs.values()) if isinstance(value, Path)
    )
    return hashkey(*args, states, **kwargs)
