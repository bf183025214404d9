"""The data type of a published training set or benchmark: source, reader and, for a benchmark,
score.
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
    """Options of a reader: folders of pictures, columns, seeds."""

    pictures: Path
    """Folder of stored pictures."""
    roots: tuple[Path, ...] = ()
    """Folders of relative picture names, besides the folder of their file."""
    strip: tuple[str, ...] = ()
    """Prefixes of picture names to remove."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Sample field -> column, for the set "table"."""
    option_seed: int = 0
    """Seed of the order of options, for sets whose order gives the answer away."""

    def store(self, *beside: Path) -> PictureStore:
        """The picture store for rows with picture names relative to the folders `beside`, else to
        `roots`.
        """
        roots = tuple(dict.fromkeys((*beside, *self.roots)))
        return PictureStore(self.pictures, roots=roots, strip=self.strip)


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A row that is not a sample yet: a resumed import skips finished rows."""

    row: TableRow
    make: Callable[[], Sample]
    """Makes the sample; an LfpcError or a value of the wrong kind rejects the row."""


Found = PendingRow | Sample | SampleError
"""One item of a file: a row, a finished sample, or the reason why a row is unreadable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSet:
    """A published training set or benchmark."""

    name: str
    fetch: str
    """Instructions to get the files, and the layout of their folder."""
    read: Callable[[Path, ReadOptions], Iterator[Found]]
    """(folder or file, options) -> items in the published order."""
    score: Callable[[Records], Summary] | None = None
    """Records -> summary, see `lfpc.metrics.summary`; None: a training set."""
    questions: int | None = None
    """Number of rows of the published set; None: not fixed."""


def hugging_face(
    name: str,
    repositories: Sequence[str],
    layout: str,
    *,
    include: str = "",
    exclude: str = "",
    unpack: str = "",
    size: str = "",
) -> str:
    """The `fetch` text of a set in Hugging Face data sets.

    Args:
        name: name of the set and of its folder.
        repositories: data sets as "owner/name"; of several, each goes into a folder of its name.
        layout: needed files and their layout.
        include: pattern of the needed files; empty: all.
        exclude: pattern of files that are not needed; empty: none.
        unpack: archive among them.
        size: size of the download as the hub lists it; empty: not looked up.
    """
    several = len(repositories) > 1
    only = f" --include '{include}'" if include else ""
    only += f" --exclude '{exclude}'" if exclude else ""
    about = f" ({size})" if size else ""
    commands = [
        f"hf download {repository} --repo-type dataset{only} --local-dir DIR/{name}"
        + (f"/{repository.rpartition('/')[2]}" if several else "")
        for repository in repositories
    ]
    if unpack:
        commands.append(f"unzip -q DIR/{name}/{unpack} -d DIR/{name}")
    lines = "".join(f"\n  {command}" for command in commands)
    return f"Hugging Face data set {', '.join(repositories)}{about}:{lines}\n{layout}"
