"""Locks that allow one writing process per folder.

The lock is `flock` on the file `.lock` in the folder, which the system releases when the process
ends for any reason. Reading takes no lock. Without `flock` (Windows, some network file systems)
nothing is locked.
"""

import os
import weakref
from pathlib import Path
from threading import RLock
from typing import Self

from lfpc.errors import RunError
from lfpc.storage.files import disk

try:
    import fcntl
except ImportError:
    fcntl = None

LOCK_FILE = ".lock"
_guard = RLock()
_held: dict[Path, list[int]] = {}
"""Folder -> [descriptor of its lock file, locks of this process on it]."""


class FolderLock:
    """A lock on `folder` against other processes, until `release` or garbage collection."""

    def __init__(self, folder: Path, *, again: bool = True) -> None:
        """Lock `folder`, which is created if missing.

        Args:
            folder: folder to lock.
            again: whether this process may hold further locks on it.
        Raises:
            RunError: the folder is locked, or not writable.
        """
        key = folder.resolve()
        with _guard:
            if key not in _held:
                _held[key] = [_locked(folder), 0]
            elif not again:
                raise _in_use(folder)
            _held[key][1] += 1
        self.release = weakref.finalize(self, _release, key)
        """Release the lock; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _locked(folder: Path) -> int:
    """Descriptor of the folder's lock file, now locked by this process."""
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _in_use(folder) from None
    except OSError:  # a file system without locks
        pass
    return descriptor


def _in_use(folder: Path) -> RunError:
    return RunError(
        f"{folder} is in use: another process writes there; wait until it ends, or use another "
        f"folder"
    )


def _release(key: Path) -> None:
    with _guard:
        if key in _held:
            _held[key][1] -= 1
            if not _held[key][1]:
                os.close(_held.pop(key)[0])


def _forget() -> None:
    """Forget the parent's locks in a forked process, which would hold them past the parent's
    end.
    """
    global _guard
    _guard = RLock()
    for descriptor, _ in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
