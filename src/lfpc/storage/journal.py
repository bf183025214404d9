"""Append-only lines of JSON.

A line counts once its line break is on disk. A half-written line of a killed process is skipped on
reading, and cut when the file is opened for writing.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from lfpc.errors import RunError
from lfpc.storage.files import LONE_SURROGATES, disk
from lfpc.storage.typed import plain


@dataclass(frozen=True, slots=True)
class Journal:
    """JSON objects with keys, appended one per line. Every method raises RunError if the disk
    refuses.
    """

    path: Path

    @classmethod
    def open(cls, path: Path) -> Self:
        """The journal at `path`, for its one writing process; a torn last line is cut."""
        cut_torn_line(path)
        return cls(path)

    def append(self, key: str, row: Mapping[str, Any]) -> None:
        """Add `row` under `key`."""
        append_line(self.path, {"key": key, **row})

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every object as written, with its "key", one at a time."""
        return read_lines(self.path)

    def by_key(self) -> dict[str, dict[str, Any]]:
        """Objects by key, in the order first written; the last of a key counts."""
        return {row["key"]: row for row in self.rows()}


def line_of(row: Mapping[str, Any]) -> str:
    """`row` (see `plain`) as a line."""
    return json.dumps(plain(row), ensure_ascii=False) + "\n"


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append `row` to the file `path`, which is created if missing."""
    with disk(path), path.open("a", encoding="utf-8", errors=LONE_SURROGATES) as out:
        out.write(line_of(row))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of the complete lines of `path`, one at a time; none without the file.

    Raises:
        RunError: a complete line is not a JSON object.
    """
    if not path.exists():
        return
    with disk(path), path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"an object is needed, got {line.strip()[:60]}")
            except (ValueError, RecursionError) as error:
                raise RunError(
                    f"{path}:{number}: not a line of JSON ({error}); delete the line to continue"
                ) from error
            yield cast("dict[str, Any]", row)


def cut_torn_line(path: Path) -> None:
    """Truncate `path` after its last complete line."""
    if not path.exists():
        return
    with disk(path), path.open("rb+") as file:
        keep = end = file.seek(0, os.SEEK_END)
        while keep:
            start = max(0, keep - 65536)
            file.seek(start)
            found = file.read(keep - start).rfind(b"\n")
            if found >= 0:
                keep = start + found + 1
                break
            keep = start
        if keep < end:
            file.truncate(keep)
