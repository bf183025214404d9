"""A set that does not grow in memory, for the ids and keys of large data sets."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from lfpc.errors import DiskError

_CACHE_KIB = 4096


class Seen:
    """A set of texts, in a temporary file of the system beyond some MiB. See `seen_texts`."""

    def __init__(self, rows: sqlite3.Connection) -> None:
        self._rows = rows

    def __contains__(self, text: str) -> bool:
        return self._run("SELECT 1 FROM seen WHERE text = ?", text).fetchone() is not None

    def add(self, text: str) -> bool:
        """Add `text`; returns whether it is new."""
        return self._run("INSERT OR IGNORE INTO seen VALUES (?)", text).rowcount == 1

    def _run(self, command: str, text: str) -> sqlite3.Cursor:
        try:
            return self._rows.execute(command, (text.encode("utf-8", "surrogatepass"),))
        except sqlite3.Error as error:
            raise DiskError(f"the system's temporary folder is not usable: {error}") from error


@contextmanager
def seen_texts() -> Iterator[Seen]:
    """An empty set of texts."""
    # "": a private file, which the system removes; a generator may end in another thread
    with closing(sqlite3.connect("", isolation_level=None, check_same_thread=False)) as rows:
        for command in (
            f"PRAGMA cache_size = -{_CACHE_KIB}",
            "PRAGMA journal_mode = OFF",
            "CREATE TABLE seen (text BLOB PRIMARY KEY) WITHOUT ROWID",
            "BEGIN",
        ):
            rows.execute(command)
        yield Seen(rows)
