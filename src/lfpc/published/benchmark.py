"""What a benchmark is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lfpc.metrics.summary import Records, Summary
from lfpc.published.rows import Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A published set of questions: how its files are read and how its answers are counted."""

    name: str
    read: Callable[[Path, Path, int], Found]
    """(folder of the published files, work folder, seed) -> samples. Pictures out of table cells go
    into the work folder."""
    score: Callable[[Records], Summary]
    """Records -> their summary; see `lfpc.metrics.summary`."""
    fetch: str
    """Where a person gets the files, and what the folder should look like then."""
    questions: int | None = None
    """Rows of the published set; None: it has no fixed number."""
