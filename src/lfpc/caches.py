"""A cache bounded by bytes, for large values that are costly to compute. Threads may share it.

A path argument stands for the current file: after a replacement its values are computed again.
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
    """Decorator that caches the last values of a function with hashable arguments, up to
    `max_bytes` in total.

    Values larger than `max_bytes`, and exceptions, are not cached. Concurrent calls with equal
    arguments compute the value once.

    Args:
        max_bytes: bound of all cached values.
        size: bytes of a value.
    """
    return cached(LRUCache(max_bytes, size), key=_key, condition=Condition())


def file_state(path: Path) -> tuple[int, ...]:
    """A value that changes with the file, even if a copy keeps the modification time; empty without
    a file.
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
