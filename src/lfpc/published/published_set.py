"""What a published training set or benchmark is: where to get its files, how to read them and, for
a benchmark, how to score answers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lfpc.errors import SampleError
from lfpc.metrics.summary import Records, Summary
from lfpc.published.files import TableRow
from lfpc.published.pictures import PictureStore
from lfpc.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Where pictures are looked for and stored, and what the user decides about rows."""

    pictures: Path
    """Folder of stored pictures."""
    roots: tuple[Path, ...] = ()
    """Folders that relative picture names start at, besides the one of the file that names them."""
    strip: tuple[str, ...] = ()
    """Beginnings of picture names that are taken off."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Field of a sample -> column, for the set "table"."""
    option_seed: int = 0
    """Seed of the order of options, where the published order gives the answer away."""

    def store(self, *beside: Path) -> PictureStore:
        """The store for rows whose picture names start at the folders `beside`, else at `roots`."""
        roots = tuple(dict.fromkeys((*beside, *self.roots)))
        return PictureStore(self.pictures, roots=roots, strip=self.strip)


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A row that is not a sample yet: an import skips the rows that it has already done."""

    row: TableRow
    make: Callable[[], Sample]
    """Makes the sample; an LfpcError or a value of another kind rejects the row."""


Found = PendingRow | Sample | SampleError
"""What a file holds in one place: a row, a finished sample, or why the row cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSet:
    """A published training set or benchmark."""

    name: str
    fetch: str
    """Where a person gets the files, and how the folder looks then."""
    read: Callable[[Path, ReadOptions], Iterator[Found]]
    """(folder or file, options) -> what is in it, in the published order."""
    score: Callable[[Records], Summary] | None = None
    """Records -> their summary, see `lfpc.metrics.summary`; None: a training set."""
    questions: int | None = None
    """Rows of the published set; None: it has no fixed number."""


def hugging_face(name: str, repositories: Sequence[str], layout: str) -> str:
    """The `fetch` text of a set that lies in data sets of Hugging Face.

    Args:
        name: of the set, which names its folder.
        repositories: of the data sets, as "owner/name".
        layout: which of the files are needed, and how they lie.
    """
    commands = "".join(
        f"\n  hf download {repository} --repo-type dataset --local-dir DIR/{name}"
        for repository in repositories
    )
    return f"Hugging Face data set {', '.join(repositories)}:{commands}\n{layout}"
