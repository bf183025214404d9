"""Content hashes of what a run is computed from, so that a path is not taken for an identity.

Files are hashed whole: a fine-tuned checkpoint may differ from its base in a few rows of one
matrix, which a sample of its bytes misses.
"""

import json
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from lfpc.storage.typed import plain

DIGITS = 16
"""Hexadecimal digits of a hash, 64 bits: enough against an accident, short enough for a row."""
THREADS = 4


def value_hash(value: Any) -> str:
    """Hash of a value that `plain` turns into JSON."""
    text = json.dumps(plain(value), sort_keys=True, ensure_ascii=False)
    return sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:DIGITS]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, computed once per process while its size and time stay the same.

    Raises:
        OSError: it is unreadable, or no ordinary file.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(0, "not an ordinary file", str(path))
    return _file_hash(str(path.absolute()), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=65536)
def _file_hash(path: str, size: int, changed: int) -> str:
    with Path(path).open("rb") as content:
        return file_digest(content, "sha256").hexdigest()


def file_hashes(paths: Iterable[Path]) -> dict[Path, str]:
    """Hashes by path, several files at a time; unreadable files have an empty one."""

    def hashed(path: Path) -> str:
        try:
            return file_hash(path)[:DIGITS]
        except OSError:
            return ""

    distinct = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(THREADS) as threads:
        return dict(zip(distinct, threads.map(hashed, distinct), strict=True))
