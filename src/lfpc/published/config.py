"""What an import reads, and what it takes. Torch-free, and read by the command line."""

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
    """What an import reads, and what it takes."""

    format: Positional[str]
    """Layout of the files: deepeyes, verl, pixel-reasoner, chain-of-focus, thinklite-vl,
    visualprobe, mini-o3, table (any columns, see --map), or a benchmark (vstar, hrbench-4k,
    hrbench-8k, treebench, zoombench, ...). docs/data.md says what each needs."""
    src: Positional[Path]
    """Folder of the files, or one file. Nothing in it is changed."""
    roots: Annotated[tuple[Path, ...], arg(name="root")] = ()
    """Further folders with pictures; a picture outside all named folders is rejected."""
    strip: tuple[str, ...] = ()
    """Beginnings of picture names to take off, as in /authors/disk/."""
    columns: Annotated[
        Mapping[str, str] | None,
        word_option(_columns, _words_of, metavar="FIELD=COLUMN"),
        arg(name="map"),
    ] = None
    """For the format table: FIELD=COLUMN, as in question=problem answer=extra_info.answer; see
    docs/data.md for the fields."""
    min_side: int = 28
    """Least pixels of a picture's shorter side: one visual token."""
    link: bool = False
    """Make hard links to picture files, where the disk allows it, in place of copies."""
    seed: Annotated[int, arg(name="option-seed")] = 0
    """Seed of the order of options, where a benchmark's own order gives the answer away."""
    files: NotAnOption[Mapping[str, int] | None] = None
    """Bytes of every file at import: a continued import must find the same."""
