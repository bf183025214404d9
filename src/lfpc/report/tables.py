"""Results as tables of texts, for the page, the README and a paper. Fractions become per cent here
and nowhere else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

Row = Mapping[str, Any]
NOTHING = "\u2013"
"""Shown where there is no value."""
PROBE_NAMES = {
    "noise": "noise",
    "truth": "truth box",
    "truth-wide": "truth box, wide",
    "truth-each": "each truth box",
    "other": "other picture",
    "mean": "mean colour",
    "blur": "blurred crop",
    "none": "no picture",
    "repeat": "own crop again",
}
METRIC_NAMES = {
    "accuracy": "accuracy",
    "noise_drop": "lost under noise",
    "iou": "IoU",
    "crop_area": "crop area",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, and the episodes it leads to on the page ("" leads nowhere)."""

    text: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; the first cell of a row names it."""

    name: str
    """Of its files."""
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def percent(value: float | None, *, signed: bool = False) -> str:
    """A fraction as per cent with one decimal."""
    return (
        NOTHING
        if value is None
        else f"{100 * value:{'+' if signed else ''}.1f} %".replace("-", "\u2212")
    )


def with_interval(
    value: float | None, interval: Sequence[float | None] | None, *, signed: bool = False
) -> str:
    """A fraction as per cent, its interval behind it."""
    low, high = interval or (None, None)
    if value is None or low is None or high is None:
        return percent(value, signed=signed)
    return f"{percent(value, signed=signed)} [{100 * low:.1f}, {100 * high:.1f}]".replace(
        "-", "\u2212"
    )


def number(value: float | None, digits: int = 1) -> str:
    """A number with `digits` decimals and a comma between thousands."""
    return NOTHING if value is None else f"{value:,.{digits}f}".replace("-", "\u2212")


def points(difference: Mapping[str, Any]) -> str:
    """The delta of a difference in percentage points, its interval behind it."""
    text = with_interval(
        difference.get("delta"), [difference.get("low"), difference.get("high")], signed=True
    )
    return text.replace(" %", "").replace("+0.0", "0.0")


def p_value(value: float | None) -> str:
    """A p-value to three decimals."""
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def episodes_link(
    arm: str, budget: str, show: str = "all", *, beside: Sequence[str] = (), **more: str
) -> str:
    """Address of the episodes of one setting in the browser; `show` names a filter, `beside`
    another (arm, budget).
    """
    other = dict(zip(("with-arm", "with-budget"), beside, strict=False))
    return "episodes.html#" + urlencode(
        {"arm": arm, "budget": budget, **other, "show": show, **more}
    )


def settings(results: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """(arm, budget name, its results), in the order evaluated."""
    for arm, budgets in results["arms"].items():
        for budget, found in budgets.items():
            yield arm, budget, found


def page_tables(
    results: Mapping[str, Any], planned: Sequence[Row], further: Sequence[Row]
) -> list[Table]:
    """Every table of the page that has rows. `planned` and `further` are differences, each adjusted
    for its own number.
    """
    tables = [
        accuracy_table(results),
        probe_table(results),
        pointing_table(results),
        efficiency_table(results),
    ]
    tables.append(difference_table("differences", "Differences", planned))
    ablations = [row for row in further if row["left"][0].startswith(f"{row['right'][0]}-")]
    tables.append(difference_table("ablations", "Ablations", ablations))
    tables.append(
        difference_table(
            "runs", "Run against run", [row for row in further if row not in ablations]
        )
    )
    return [table for table in [*tables, category_table(results)] if table.rows]


def accuracy_table(results: Mapping[str, Any]) -> Table:
    """A row an arm, a column a budget."""
    budgets = list(dict.fromkeys(budget for _, budget, _ in settings(results)))

    def cell(arm: str, budget: str) -> Cell:
        found = results["arms"][arm].get(budget)
        if found is None:
            return Cell(NOTHING)
        return Cell(
            with_interval(found["accuracy"], found["accuracy_ci"]),
            episodes_link(arm, budget, "wrong"),
        )

    rows = tuple((Cell(arm), *(cell(arm, budget) for budget in budgets)) for arm in results["arms"])
    note = (
        "Share of questions answered rightly, with its 95 % interval. Failed questions count "
        "as wrong."
    )
    return Table(
        "accuracy", "Accuracy", note, ("arm", *(f"{budget} budget" for budget in budgets)), rows
    )


def probe_table(results: Mapping[str, Any]) -> Table:
    """Accuracy lost under each probe that was run."""
    ran = [
        probe
        for probe in PROBE_NAMES
        if any(probe in found.get("probes", {}) for *_, found in settings(results))
    ]
    shows = {"noise": "fooled", "truth": "truth-helps"}

    def cells(arm: str, budget: str, found: Mapping[str, Any]) -> Iterable[Cell]:
        yield Cell(f"{arm}, {budget}")
        for probe in ran:
            text = points(found.get("probes", {}).get(probe, {}).get("all", {}))
            yield Cell(
                text, episodes_link(arm, budget, shows.get(probe, "all")) if text != NOTHING else ""
            )

    rows = tuple(tuple(cells(*setting)) for setting in settings(results)) if ran else ()
    note = (
        "Accuracy lost, in points, when something else is shown for every crop; same "
        "questions, 95 % interval."
    )
    if "repeat" in ran:
        note += " The last column repeats the ordinary run: what chance alone does."
    return Table(
        "probes", "Crop dependence", note, ("setting", *(PROBE_NAMES[probe] for probe in ran)), rows
    )


def pointing_table(results: Mapping[str, Any]) -> Table:
    """Where the policy looked."""
    rows = tuple(
        (
            Cell(f"{arm}, {budget}"),
            Cell(percent(found.get("tool_rate")), episodes_link(arm, budget, "no-crop")),
            Cell(
                with_interval(found.get("iou"), found.get("iou_ci")),
                episodes_link(arm, budget, sort="iou"),
            ),
            *(
                Cell(percent(found.get(key)), episodes_link(arm, budget, sort="iou"))
                for key in ("iou_first", "iou_best", "coverage")
            ),
            Cell(percent(found.get("crop_area")), episodes_link(arm, budget, sort="area")),
        )
        for arm, budget, found in settings(results)
    )
    note = (
        "IoU with the best fitting nested truth box, over questions with a crop; coverage of "
        "the tightest box; area of the last crop."
    )
    columns = (
        "setting",
        "shows a crop",
        "IoU, last crop",
        "IoU, first",
        "IoU, best",
        "coverage, last",
        "area, median",
    )
    return Table("pointing", "Pointing", note, columns, rows)


def efficiency_table(results: Mapping[str, Any]) -> Table:
    """What a question costs."""
    sorts = {
        "visual_tokens": "tokens",
        "global_tokens": "tokens",
        "crops": "turns",
        "turns": "turns",
    }
    rows = tuple(
        (
            Cell(f"{arm}, {budget}"),
            *(
                Cell(number(found.get(key)), episodes_link(arm, budget, sort=sort))
                for key, sort in sorts.items()
            ),
            Cell(
                number(found.get("seconds_per_question"), 3),
                episodes_link(arm, budget, sort="seconds"),
            ),
        )
        for arm, budget, found in settings(results)
    )
    note = (
        "Means per question; visual tokens are those of the first view and of all crops together."
    )
    return Table(
        "cost",
        "Cost",
        note,
        ("setting", "visual tokens", "of the first view", "crops", "replies", "seconds"),
        rows,
    )


def category_table(results: Mapping[str, Any]) -> Table:
    """Accuracy by the category of the question, where there are several."""
    names = list(
        dict.fromkeys(
            name for *_, found in settings(results) for name in found.get("categories", {})
        )
    )

    def cell(arm: str, budget: str, found: Mapping[str, Any], name: str) -> Cell:
        group = found.get("categories", {}).get(name)
        text = f"{percent(group['accuracy'])} of {group['n']:,}" if group else NOTHING
        return Cell(
            text, episodes_link(arm, budget, "wrong", **({"category": name} if name else {}))
        )

    several = len(names) > 1
    rows = tuple(
        (Cell(f"{arm}, {budget}"), *(cell(arm, budget, found, name) for name in names))
        for arm, budget, found in settings(results)
    )
    columns = ("setting", *(name or "none" for name in names))
    return Table(
        "categories",
        "Accuracy by category",
        "Share answered rightly of each category's questions.",
        columns,
        rows if several else (),
    )


def difference_table(name: str, title: str, differences: Sequence[Mapping[str, Any]]) -> Table:
    """Planned comparisons; each leads to the questions on which the two sides differ."""
    rows = tuple(
        (
            Cell(
                f"{' '.join(row['left'])} \u2212 {' '.join(row['right'])}: "
                f"{METRIC_NAMES.get(row['metric'], row['metric'])}"
            ),
            Cell(
                points(row),
                episodes_link(
                    row["left"][0],
                    row["left"][1],
                    "differ" if row["metric"] == "accuracy" else "all",
                    beside=row["right"],
                ),
            ),
            Cell(p_value(row["p"])),
            Cell(p_value(row["p_holm"])),
            Cell(number(row["n"], 0)),
            Cell(number(row["clusters"], 0)),
        )
        for row in differences
    )
    note = (
        "In points, paired by question and seed; bootstrap interval over questions, "
        "sign-flip permutation p, "
        "and p adjusted for the number of rows (Holm)."
    )
    return Table(
        name,
        title,
        note,
        ("left \u2212 right", "difference", "p", "p, adjusted", "pairs", "questions"),
        rows,
    )


def results_markdown(
    results: Mapping[str, Any], comparisons: Mapping[str, Any] | None = None
) -> str:
    """The main table as Markdown, a row for each arm and budget; then the planned comparisons and
    what the small budget saves.
    """
    columns = (
        "arm",
        "budget",
        "accuracy",
        "lost under noise",
        "shows a crop",
        "IoU",
        "crop area",
        "visual tokens",
        "s / question",
    )
    rows = [
        (
            arm,
            budget,
            with_interval(found["accuracy"], found["accuracy_ci"]),
            with_interval(found.get("noise_drop"), found.get("noise_drop_ci")),
            percent(found.get("tool_rate")),
            percent(found.get("iou")),
            percent(found.get("crop_area")),
            number(found.get("visual_tokens"), 0),
            number(found.get("seconds_per_question"), 3),
        )
        for arm, budget, found in settings(results)
    ]
    text = markdown(columns, rows, left=2)
    if not comparisons:
        return text
    text += "\n" + table_markdown(
        difference_table("differences", "Differences", comparisons.get("differences", ()))
    )
    ratios = comparisons.get("ratios", {})
    names = {
        "visual_tokens": "visual tokens",
        "seconds_per_question": "seconds a question",
        "noise_drop": "accuracy lost under noise",
    }
    saved = [
        (name, f"{number(ratios[key])} times")
        for key, name in names.items()
        if ratios.get(key) is not None
    ]
    return text + (
        "\n"
        + markdown(
            ("full baseline / small Stage II; noise: Stage I / baseline", "ratio"), saved, left=1
        )
        if saved
        else ""
    )


def table_markdown(table: Table) -> str:
    """A table as Markdown, its first column to the left."""
    return markdown(table.columns, [[cell.text for cell in row] for row in table.rows], left=1)


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
    """A text that LaTeX sets as it is."""
    return " ".join("".join(_LATEX.get(sign, sign) for sign in text).split())


def table_latex(table: Table) -> str:
    """A table for LaTeX (packages booktabs and inputenc), its first column to the left, its note as
    the caption.
    """
    lines = [
        " & ".join(latex_text(text) for text in line) + r" \\"
        for line in (table.columns, *([c.text for c in row] for row in table.rows))
    ]
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
