"""The `data` verbs on samples folders. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from lfpc.cli.verb import Verb
from lfpc.data.config import PRESETS, MixConfig
from lfpc.errors import ConfigError
from lfpc.options import Embedded, fields_of
from lfpc.published.config import ImportConfig


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Check every row of a samples folder with its picture; prints a line per problem. Fails if a
    sample is unusable.
    """

    EXAMPLES: ClassVar = (
        "lfpc data check data/train",
        "lfpc data check data/train --page out/check --against benchmarks/vstar",
    )

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder: samples.jsonl beside its pictures."""
    against: tuple[Path, ...] = ()
    """Folders of benchmarks (samples folders, or any folder of pictures) to search for copies of
    the samples' pictures."""
    page: Path | None = None
    """Folder for a page with counts, the worst samples and random ones. Default: no page."""
    hashes: Path | None = None
    """Folder for the hashes of pictures, which checks may share. Default: out/hashes."""

    def run(self) -> str:
        from lfpc.data.check import CheckSummary, check_samples
        from lfpc.data.hashes import known_hashes, leak_finder
        from lfpc.errors import SampleError
        from lfpc.report.check_page import write_check_page

        leak = (
            leak_finder(known_hashes(self.against, self.hashes or Path("out/hashes")))
            if self.against
            else None
        )
        report = CheckSummary()
        for checked in check_samples(self.folder, leak):
            report.add(checked)
            for line in checked.lines:
                print(line)
        if self.page:
            print(f"page: {write_check_page(self.page, report, self.folder)}")
        if report.unusable or not report.rows:
            raise SampleError(
                f"{self.folder}: {report.unusable} of {report.rows} samples are unusable"
            )
        warned = f", {report.warned} with warnings" if report.warned else ""
        return f"{self.folder}: {report.rows} samples, all usable{warned}"


@dataclass(frozen=True, kw_only=True)
class DataMix:
    """Mix imported training sets: filtered, drawn evenly over categories, without duplicates and
    without pictures of benchmarks.
    """

    EXAMPLES: ClassVar = (
        "lfpc data mix sets data/mixture --preset stage1 --against benchmarks/vstar",
        "lfpc data mix sets data/mixture --parts mine=500 thinklite-vl=all",
    )

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Folder with a samples folder per part: pixel-reasoner, chain-of-focus, thinklite-vl for the
    preset stage1."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Samples folder to write."""
    preset: Literal["stage1"] = "stage1"
    """Parts and counts. stage1, the paper's: Pixel Reasoner 2,700, Chain-of-Focus 2,100,
    ThinkLite-VL all."""
    config: Embedded[MixConfig] = field(default_factory=MixConfig)
    against: tuple[Path, ...] = ()
    """Folders of benchmarks (samples folders, or any folder of pictures) whose pictures are left
    out."""
    min_share: float = 0.5
    """Minimum share of samples that pass the filters; below, nothing is written."""

    def run(self) -> str:
        from lfpc.data.mix import mix
        from lfpc.report.check_page import write_mix_page

        config = self.config
        if not config.parts:
            config = replace(config, parts=PRESETS[self.preset])
        mixed = mix(self.folder, config, self.out, against=self.against, min_share=self.min_share)
        for name, counts in mixed.parts.items():
            print(f"{name}: {', '.join(f'{count:,} {fact}' for fact, count in counts.items())}")
        if not self.against:
            print("not compared with any benchmark; name their folders with --against")
        return (
            f"{mixed.samples:,} samples: {self.out} (figures: "
            f"{write_mix_page(self.out / 'report', mixed)})"
        )


@dataclass(frozen=True, kw_only=True)
class DataImport(ImportConfig):
    """Read a published data set into a samples folder. Rows that cannot be samples are listed with
    their reasons in rejected.jsonl.
    """

    EXAMPLES: ClassVar = (
        "lfpc data import vstar downloads/vstar data/vstar",
        "lfpc data import table questions.csv data/mine --map image=file question=q answer=a",
    )

    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Samples folder to write; an interrupted import can resume, a finished one is unchanged."""
    min_share: float = 0.5
    """Minimum share of rows that are samples; below, the import fails and takes nothing. Rows about
    videos or several pictures do not count."""

    def run(self) -> str:
        from lfpc.published.importing import REJECTED_FILE, import_published
        from lfpc.report.import_page import import_lines, write_import_page

        config = ImportConfig(**fields_of(ImportConfig, self))
        found = import_published(config, self.out, min_share=self.min_share)
        print(*import_lines(found), sep="\n")
        if found.rejected:
            print(f"rejected rows: {self.out / REJECTED_FILE}")
        page = write_import_page(self.out / "report", found)
        written = f"already imported; {found.samples:,} samples" if found.already else "samples"
        return f"{written}: {self.out} (figures: {page})"


@dataclass(frozen=True, kw_only=True)
class DataExport:
    """Write a samples folder in another tool's layout."""

    EXAMPLES: ClassVar = ("lfpc data export verl data/selected out/verl",)

    format: Positional[Literal["samples", "verl", "deepeyes", "mini-o3"]]
    """Layout. samples: a folder with copies of its pictures; verl and deepeyes: parquet with the
    pictures inside; mini-o3: a JSON list."""
    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Folder to write."""
    min_share: float = 0.5
    """Minimum share of samples whose rows and pictures are sound; below, nothing is written."""

    def run(self) -> str:
        from lfpc.data.exporters import export
        from lfpc.samples import scan_samples

        if self.out.resolve() == self.folder.resolve():
            raise ConfigError(
                f"{self.out} is the samples folder itself; name another output folder"
            )
        found = export(self.format, scan_samples(self.folder), self.out, min_share=self.min_share)
        for reason in found.left_out:
            print(f"left out: {reason}")
        others = f", {len(found.left_out):,} left out" if found.left_out else ""
        return f"{found.samples:,} samples{others}: {self.out}"


@dataclass(frozen=True, kw_only=True)
class FetchInstructions:
    """Print where to get the files of a training set or benchmark. Nothing is downloaded."""

    EXAMPLES: ClassVar = ("lfpc data fetch-instructions vstar",)

    task: Annotated[Positional[str], arg(metavar="NAME")]
    """Name of the set; an unknown name lists the known ones."""

    def run(self) -> str:
        from lfpc.published.index import published_set

        found = published_set(self.task)
        use = (
            f"lfpc eval --tasks {found.name} --data DIR --out RUN ..."
            if found.score
            else f"lfpc data import {found.name} DIR/{found.name} OUT"
        )
        return f"{found.fetch}\nThen: {use}" if "hf download" in found.fetch else found.fetch


VERBS: dict[str, type[Verb]] = {
    "data import": DataImport,
    "data export": DataExport,
    "data mix": DataMix,
    "data check": DataCheck,
    "data fetch-instructions": FetchInstructions,
}
