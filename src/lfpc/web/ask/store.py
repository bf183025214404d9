"""A server's temporary files: named by their content, with the least recently used dropped beyond a
size.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Lock


class FileStore:
    """Files in `folder`, which belongs to the store, up to `max_bytes` in total. Threads may share
    it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """Sizes by name, the least recently used first."""
        self._holds: Counter[str] = Counter()
        self._lock = Lock()

    def put(self, data: bytes, ending: str) -> str:
        """Store `data`; returns its name, which depends on the bytes only. `ending` is the file
        ending, such as ".png".
        """
        name = sha256(data).hexdigest()[:32] + ending
        with self._lock:
            if name not in self._sizes:
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(data)
                self._sizes[name] = len(data)
            self._sizes.move_to_end(name)
            for old in list(self._sizes)[:-1]:
                if sum(self._sizes.values()) <= self.max_bytes:
                    break
                if not self._holds[old]:
                    self._forget(old)
        return name

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """A context in which `name` is not dropped for newer files."""
        with self._lock:
            self._holds[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._holds[name] -= 1
                if not self._holds[name]:
                    del self._holds[name]

    def find(self, name: str) -> Path | None:
        """Path of `name`; None if unknown or dropped."""
        with self._lock:
            if name not in self._sizes:
                return None
            self._sizes.move_to_end(name)
            return self.folder / name

    def drop(self, name: str) -> None:
        """Delete `name`."""
        with self._lock:
            if name in self._sizes:
                self._forget(name)

    def _forget(self, name: str) -> None:
        del self._sizes[name]
        (self.folder / name).unlink(missing_ok=True)
