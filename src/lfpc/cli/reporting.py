"""Runs as pages, figures and tables. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from lfpc.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write runs as pages that open from disk: tables, curves, every episode; figures as SVG and
    CSV, tables as Markdown and LaTeX.

    A run is a folder that lfpc demo, lfpc train or lfpc eval wrote. Several runs are shown side by
    side, with paired differences (the first minus each other).
    """

    EXAMPLES: ClassVar = (
        "lfpc report runs/vstar",
        "lfpc report runs/stage1 runs/stage2 --out out/both",
        "lfpc report --watch runs/stage1",
    )

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """Run folders."""
    out: Path = Path("out/report")
    """Folder of the report; replaces an earlier report."""
    title: str | None = None
    """Title of the page. Default: the names of the runs."""
    pictures: int = 200
    """Number of questions to include with pictures, drawn from all kinds; the others have their
    texts."""

    watch: bool = False
    """Serve the report on 127.0.0.1 in place of writing it, and update it while the runs are
    written."""
    port: int = 0
    """Port of --watch; 0: a free port."""

    def run(self) -> str:
        from lfpc.report import read_runs, write_report

        if self.watch:
            return self._follow()
        evidence = read_runs(self.runs)
        title = self.title or ", ".join(evidence.runs or [run.resolve().name for run in self.runs])
        return f"open {write_report(self.out, evidence, title=title, shown=self.pictures)}"

    def _follow(self) -> str:
        from lfpc.web import need_web

        need_web()
        from lfpc.web.watching import watch

        watch(
            self.runs,
            title=self.title or ", ".join(run.resolve().name for run in self.runs),
            port=self.port,
        )
        return "stopped serving the report; without --watch it is written to a folder"


@dataclass(frozen=True, kw_only=True)
class Card:
    """Write a model card for the hub: base, data, settings, and results with intervals and crop
    dependence.
    """

    EXAMPLES: ClassVar = (
        "lfpc card runs/stage2/checkpoints/step-000080 --evaluations runs/stage2-vstar",
    )

    checkpoint: Annotated[Positional[Path], arg(metavar="CHECKPOINT")]
    """Checkpoint that `lfpc train` wrote."""
    evaluations: tuple[Path, ...] = ()
    """Folders that `lfpc eval` wrote about it; those of other weights are rejected."""
    title: str = ""
    """Heading of the card. Default: the names of run and checkpoint."""
    out: Path | None = None
    """File to write. Default: README.md in the checkpoint."""

    def run(self) -> str:
        from lfpc.report.model_card import model_card, write_model_card

        card = model_card(self.checkpoint, self.evaluations, title=self.title)
        return f"card: {write_model_card(self.out or self.checkpoint / 'README.md', card)}"


@dataclass(frozen=True, kw_only=True)
class MiniGallery:
    """Write a gallery of the paper's three kinds of episode from a demo: right crop and answer,
    right crop and wrong answer, wrong crop.
    """

    demo: Positional[Path] = Path("out/demo")
    """Folder of the demo."""
    out: Path = Path("docs")
    """Folder for gallery.md and gallery/."""

    def run(self) -> str:
        from lfpc.report.gallery import write_gallery
        from lfpc.report.reading import read_runs

        return f"gallery: {write_gallery(self.out, read_runs([self.demo]))}"


VERBS: dict[str, type[Verb]] = {
    "report": Report,
    "card": Card,
    "mini gallery": MiniGallery,
}
