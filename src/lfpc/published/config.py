"""Configuration of an import. Torch-free, and read by the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lfpc.options import NotAnOption, pairs, word_option


def _columns(words: Sequence[str]) -> dict[str, str] | None:
    return pairs("--map", words, "FIELD=COLUMN, as in question=problem") or None


def _words_of(columns: Mapping[str, str] | None) -> list[str]:
    return [f"{field}={column}" for field, column in (columns or {}).items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportConfig:
    """Configuration of an import."""

    format: Annotated[Positional[str], arg(metavar="FORMAT")]
    """Layout of the files: deepeyes, verl, pixel-reasoner, chain-of-focus, thinklite-vl,
    visualprobe, mini-o3, table (any columns, see --map), or a benchmark (vstar, hrbench-4k,
    hrbench-8k, treebench, zoombench, ...). See docs/data.md."""
    src: Annotated[Positional[Path], arg(metavar="FILES")]
    """Folder of the files, or one file; read only."""
    roots: Annotated[tuple[Path, ...], arg(name="root")] = ()
    """Further folders with pictures; pictures outside all given folders are rejected."""
    strip: tuple[str, ...] = ()
    """Prefixes of picture names to remove, such as /authors/disk/."""
    columns: Annotated[
        Mapping[str, str] | None,
        word_option(_columns, _words_of, metavar="FIELD=COLUMN"),
        arg(name="map"),
    ] = None
    """Columns for the format table: FIELD=COLUMN, such as question=problem
    answer=extra_info.answer. See docs/data.md for the fields."""
    min_side: int = 28
    """Minimum pixels of a picture's shorter side: one visual token."""
    link: bool = False
    """Make hard links to picture files in place of copies, if the disk allows it."""
    seed: Annotated[int, arg(name="option-seed")] = 0
    """Seed of the order of options, for benchmarks whose own order gives the answer away."""
    files: NotAnOption[Mapping[str, int] | None] = None
    """Bytes of every file at import; a resumed import must find the same."""
