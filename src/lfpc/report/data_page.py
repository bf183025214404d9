"""A page about data that opens from disk: facts, bars, curves, tables, samples with their boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lfpc.errors import RunError
from lfpc.report import canvas
from lfpc.report.exports import write_exports
from lfpc.report.figures import Figure
from lfpc.report.figures import bars as count_bars
from lfpc.report.pages import copy_static, templates
from lfpc.report.pictures import PictureFiles, Saved
from lfpc.samples import Sample


@dataclass(frozen=True, slots=True)
class TextTable:
    """Rows of text under a title; the first cell of a row names it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: bool = False
    """Whether cells are texts, aligned to the left and in several lines."""


@dataclass(frozen=True, slots=True)
class SampleCard:
    """A sample on the page."""

    sample: Sample
    notes: tuple[str, ...] = ()
    """Notes on the sample."""


@dataclass(frozen=True, slots=True)
class _Card:
    shown: SampleCard
    picture: Saved | None


def write_data_page(
    out: Path,
    *,
    title: str,
    facts: Sequence[str],
    warnings: Sequence[str] = (),
    bars: Mapping[str, Mapping[str, int]] | None = None,
    curves: Sequence[Figure] = (),
    tables: Sequence[TextTable] = (),
    groups: Mapping[str, Sequence[SampleCard]] | None = None,
) -> Path:
    """Write the page and its pictures into `out`; returns the path of `index.html`.

    Args:
        out: folder; made if needed.
        title: title of the page.
        facts: paragraphs at its top.
        warnings: paragraphs above them.
        bars: counts by name, one figure each; figures are also written as SVG and CSV files.
        curves: further figures.
        tables: tables below the figures.
        groups: samples to look at, by heading.
    Raises:
        RunError: the folder cannot be written.
    """
    pictures = PictureFiles(out / "pictures")
    counted = [
        count_bars(f"counts-{n}", name, counts, of=name)
        for n, (name, counts) in enumerate((bars or {}).items(), 1)
        if counts
    ]
    drawn = [*counted, *curves]
    try:
        out.mkdir(parents=True, exist_ok=True)
        cards = {
            name: [_Card(shown, pictures.original(shown.sample)) for shown in some]
            for name, some in (groups or {}).items()
            if some
        }
        page = (
            templates()
            .get_template("data.html.j2")
            .render(
                title=title,
                facts=facts,
                warnings=warnings,
                figures=drawn,
                canvas=canvas,
                tables=[table for table in tables if table.rows],
                groups=cards,
            )
        )
        copy_static(out)
        write_exports(out, (), drawn)
        (out / "index.html").write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"{out}: the page cannot be written: {error.strerror or error}") from error
    return out / "index.html"
