"""Samples folders: checks, where published files are. Imports stay inside `run`, see `lfpc.cli`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Read every row of a samples folder and open every picture; one line per problem."""

    folder: Positional[Path]
    """Samples folder: samples.jsonl beside its pictures."""

    def run(self) -> str:
        from lfpc.data.check import check_samples
        from lfpc.errors import SampleError

        rows = wrong = 0
        for problem in check_samples(self.folder):
            rows += 1
            if problem:
                wrong += 1
                print(problem)
        if wrong or not rows:
            raise SampleError(f"{self.folder}: {wrong} of {rows} samples cannot be played")
        return f"{self.folder}: {rows} samples, all can be played"


@dataclass(frozen=True, kw_only=True)
class DataImport:
    """Read a published data set into a samples folder. Rows that cannot be samples are listed with their reasons in rejected.jsonl."""

    format: Positional[str]
    """Layout of the files: deepeyes, verl, pixel-reasoner, chain-of-focus, thinklite-vl, visualprobe, mini-o3, table (any columns,
    see --map), or a benchmark (vstar, hrbench-4k, hrbench-8k, treebench, zoombench, ...). docs/data.md says what each needs."""
    src: Positional[Path]
    """Folder of the files, or one file. Nothing in it is changed."""
    out: Positional[Path]
    """Samples folder to write; an import that was interrupted goes on."""
    map: tuple[str, ...] = ()
    """For the format table: FIELD=COLUMN, as in question=problem answer=extra_info.answer; see docs/data.md for the fields."""
    root: tuple[Path, ...] = ()
    """Further folders in which picture names are looked for."""
    strip: tuple[str, ...] = ()
    """Beginnings of picture names to take off, as in /authors/disk/."""
    min_side: int = 28
    """Pixels that the shorter side of a picture needs."""
    link: bool = False
    """Make hard links to picture files, where the disk allows it, in place of copies."""
    option_seed: int = 0
    """Of the order of options, where a benchmark's own order gives the answer away."""

    def run(self) -> str:
        from lfpc.data.importing import REJECTED_FILE, ImportConfig
        from lfpc.importing import import_published
        from lfpc.report.import_page import import_lines, write_import_page

        config = ImportConfig(
            format=self.format,
            src=self.src,
            roots=self.root,
            strip=self.strip,
            columns=pairs("--map", self.map, "FIELD=COLUMN, as in question=problem") or None,
            min_side=self.min_side,
            link=self.link,
            seed=self.option_seed,
        )
        found = import_published(config, self.out)
        print(*import_lines(found), sep="\n")
        if found.rejected:
            print(f"rejected rows: {self.out / REJECTED_FILE}")
        return f"samples: {self.out} (figures: {write_import_page(self.out / 'report', found)})"


@dataclass(frozen=True, kw_only=True)
class DataExport:
    """Write a samples folder in a layout that others read."""

    format: Positional[Literal["samples", "verl", "deepeyes", "mini-o3"]]
    """samples: a folder with copies of its pictures; verl and deepeyes: parquet with the pictures inside; mini-o3: a JSON list."""
    folder: Positional[Path]
    """Samples folder."""
    out: Positional[Path]
    """Folder to write."""

    def run(self) -> str:
        from lfpc.data.exporters import EXPORTERS
        from lfpc.samples import iter_samples

        if self.out.resolve() == self.folder.resolve():
            raise ConfigError("the export needs a folder of its own")
        return f"{EXPORTERS[self.format](iter_samples(self.folder), self.out):,} samples: {self.out}"


def pairs(option: str, words: Sequence[str], form: str) -> dict[str, str]:
    """Words of the form NAME=VALUE.

    Raises:
        ConfigError: one is not; it names the option.
    """
    split = [word.partition("=") for word in words]
    for name, equals, value in split:
        if not (name and equals and value):
            raise ConfigError(f"{option} takes {form}; got {name}{equals}{value}")
    return {name: value for name, _, value in split}


@dataclass(frozen=True, kw_only=True)
class FetchInstructions:
    """Print where a person gets the files of a benchmark. Nothing is downloaded."""

    task: Positional[str]
    """Name of the benchmark; any other word lists the known ones."""

    def run(self) -> str:
        from lfpc.evaluate.benchmarks import fetch_instructions

        return fetch_instructions(self.task)


VERBS: dict[str, type[Verb]] = {
    "data import": DataImport,
    "data export": DataExport,
    "data check": DataCheck,
    "data fetch-instructions": FetchInstructions,
}
