"""A cache bounded by bytes, for values that are costly to make and large to keep. Threads may share
it.
"""

from collections.abc import Callable
from concurrent.futures import Future
from functools import update_wrapper
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
V = TypeVar("V")


class ByteCache(Generic[P, V]):
    """A function that remembers the values used last, up to `max_bytes` together; see
    `byte_cache`.
    """

    def __init__(self, make: Callable[P, V], max_bytes: int, size: Callable[[V], int]) -> None:
        self._make = make
        self.max_bytes = max_bytes
        self._size = size
        self._lock = Lock()
        self._values: dict[Any, Future[V]] = {}
        """Least recently used first; a value that is being made is there already, so that nobody
        makes it twice."""
        self._bytes: dict[Any, int] = {}
        """Sizes of the finished values."""
        update_wrapper(self, make)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        """The value for these arguments, made now or remembered. What `make` raises is not
        remembered.
        """
        key = (args, tuple(sorted(kwargs.items())))
        with self._lock:
            found = self._values.pop(key, None)
            value = self._values[key] = found or Future()
        if found is None:
            try:
                made = self._make(*args, **kwargs)
            except BaseException as error:
                self._forget(key, value)
                value.set_exception(error)
                raise
            value.set_result(made)
            self._keep(key, value, self._size(made))
        return value.result()

    def _keep(self, key: Any, value: "Future[V]", size: int) -> None:
        if size > self.max_bytes:
            self._forget(key, value)
            return
        with self._lock:
            if self._values.get(key) is value:  # else the cache was cleared meanwhile
                self._bytes[key] = size
            too_much = sum(self._bytes.values()) - self.max_bytes
            for oldest in [key for key in self._values if key in self._bytes]:
                if too_much <= 0:
                    break
                del self._values[oldest]
                too_much -= self._bytes.pop(oldest)

    def _forget(self, key: Any, value: "Future[V]") -> None:
        with self._lock:
            if self._values.get(key) is value:
                del self._values[key]

    def cache_clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self._bytes.clear()


def byte_cache(
    max_bytes: int, size: Callable[[V], int]
) -> Callable[[Callable[P, V]], ByteCache[P, V]]:
    """Decorate a function of hashable arguments so that its last values are kept, up to `max_bytes`
    together.

    A value larger than `max_bytes` is not kept. Threads that ask for the same value at once share
    one making of it.

    Args:
        max_bytes: bound of all kept values together.
        size: bytes of a value.
    """
    return lambda make: ByteCache(make, max_bytes, size)
