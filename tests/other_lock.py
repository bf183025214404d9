"""A lock of another process, without a process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lfpc.storage.files import LOCK_FILE


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A lock on `folder` like another process's: file locks belong to a descriptor."""
    fcntl = pytest.importorskip("fcntl", reason="no file locks on this platform")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
