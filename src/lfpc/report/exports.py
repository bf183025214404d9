"""Figures as SVG and CSV files, tables as Markdown and LaTeX, for a paper or a repository."""

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

from lfpc.report import canvas
from lfpc.report.cells import Table
from lfpc.report.figures import Figure
from lfpc.report.markup import table_latex, table_markdown
from lfpc.report.pages import templates


def write_exports(
    out: Path,
    tables: Sequence[Table],
    drawn: Sequence[Figure],
    hues: Mapping[str, int] | None = None,
) -> None:
    """Write `out`/figures/NAME.svg and .csv, `out`/tables/NAME.md and .tex.

    Args:
        out: folder of the report.
        tables: what to write as tables.
        drawn: what to write as figures.
        hues: number of the colour of each series. None: its place in the figure.
    """
    for folder, some in (("figures", drawn), ("tables", tables)):
        if some:
            (out / folder).mkdir(parents=True, exist_ok=True)
    template = templates().get_template("figure.svg.j2")
    for figure in drawn:
        svg = template.render(figure=figure, canvas=canvas, hues=hues)
        (out / "figures" / f"{figure.name}.svg").write_text(svg, encoding="utf-8", errors="replace")
        (out / "figures" / f"{figure.name}.csv").write_text(
            figure_csv(figure), encoding="utf-8", errors="replace", newline=""
        )
    for table in tables:
        (out / "tables" / f"{table.name}.md").write_text(
            table_markdown(table), encoding="utf-8", errors="replace"
        )
        (out / "tables" / f"{table.name}.tex").write_text(
            table_latex(table), encoding="utf-8", errors="replace"
        )


def figure_csv(figure: Figure) -> str:
    """The figure's numbers as CSV with a header. Texts that a spreadsheet would read as formulas
    begin with a quote.
    """
    out = StringIO()
    writer = csv.writer(out)
    for row in (figure.columns, *figure.values):
        writer.writerow(
            [
                f"'{value}"
                if isinstance(value, str) and value[:1] in ("=", "+", "-", "@")
                else value
                for value in row
            ]
        )
    return out.getvalue()
