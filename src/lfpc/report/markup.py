"""Tables as Markdown and LaTeX, for a repository and a paper."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lfpc.evaluation.incomplete import share
from lfpc.report.cells import Cell, Table, conditions, incomplete, interval_text
from lfpc.report.names import results_namer
from lfpc.report.numbers import number, percent
from lfpc.report.tables import difference_table


def results_markdown(results: Mapping[str, Any]) -> str:
    """The main table as Markdown, a row per arm and budget; then the planned comparisons and the
    savings of the small budget.
    """
    columns = (
        "arm",
        "budget",
        "accuracy",
        "lost under noise",
        "shows a crop",
        "IoU",
        "crop area, median",
        "visual tokens",
        "seconds alone",
    )
    rows = [
        (
            arm,
            budget,
            interval_text(found, "accuracy") + share(found["summary"]["incomplete"]),
            interval_text(found, "noise_drop") + share(incomplete(found, "noise")),
            *(percent(found["summary"][key]) for key in ("tool_rate", "iou", "crop_area")),
            number(found["summary"]["visual_tokens"], 0),
            number(found["seconds_alone"], 3),
        )
        for arm, budget, found in conditions(results)
    ]
    text = markdown(columns, rows, left=2)
    comparisons = results.get("comparisons", {})
    if rows := comparisons.get("differences"):
        found = difference_table("differences", "Differences", rows, results_namer(results))
        text += "\n" + table_markdown(found)
    ratios = comparisons.get("ratios", {})
    names = {
        "visual_tokens": "visual tokens",
        "seconds_alone": "seconds alone",
    }
    saved = [
        (name, f"{number(ratios[key])} times")
        for key, name in names.items()
        if ratios.get(key) is not None
    ]
    return text + (
        "\n" + markdown(("full matched baseline / small Stage II", "ratio"), saved, left=1)
        if saved
        else ""
    )


def table_markdown(table: Table) -> str:
    """A table as Markdown, its first column to the left."""

    def text(cell: Cell) -> str:
        return f"**{cell.text}**" if cell.best else cell.text

    return markdown(table.columns, [[text(cell) for cell in row] for row in table.rows], left=1)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    """A Markdown table whose first `left` columns are aligned to the left."""
    lines = [columns, ["---"] * left + ["---:"] * (len(columns) - left), *rows]
    return "".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |\n"
        for line in lines
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\u2212": "$-$",
    "\u2013": "--",
    "<": "$<$",
    ">": "$>$",
} | {sign: f"\\{sign}" for sign in "{}$&#_%"}


def latex_text(text: str) -> str:
    """A text with LaTeX's special characters escaped."""
    return " ".join("".join(_LATEX.get(sign, sign) for sign in text).split())


def table_latex(table: Table) -> str:
    """A table for LaTeX (packages booktabs and inputenc), its first column to the left, its note as
    the caption.
    """

    def text(cell: Cell) -> str:
        shown = latex_text(cell.text)
        return rf"\textbf{{{shown}}}" if cell.best else shown

    texts = [map(latex_text, table.columns), *(map(text, row) for row in table.rows)]
    lines = [" & ".join(line) + r" \\" for line in texts]
    body = [
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        lines[0],
        r"\midrule",
        *lines[1:],
        r"\bottomrule",
    ]
    caption = rf"\caption{{{latex_text(table.title)}. {latex_text(table.note)}}}"
    return "\n".join(
        [r"\begin{table}", r"\centering", caption, *body, r"\end{tabular}", r"\end{table}", ""]
    )
