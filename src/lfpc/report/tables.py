"""Results as text tables, for the page, the README and a paper. Only here fractions become per
cent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from lfpc.evaluation.incomplete import Shortfall, share
from lfpc.evaluation.results import lost
from lfpc.metrics.statistics import p_text

Row = Mapping[str, Any]
NOTHING = "\u2013"
"""Text of a missing value."""
PROBE_NAMES = {
    "noise": "noise",
    "truth": "truth box",
    "truth-wide": "truth box, wide",
    "truth-each": "each truth box",
    "other": "other picture",
    "mean": "mean colour",
    "blur": "blurred crop",
    "none": "no picture",
    "no-tool": "no tool",
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
    """A text with a link to its episodes ("": no link)."""

    text: str
    href: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; the first cell of a row is its label."""

    name: str
    """Base name of its files."""
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
    value: float | None, ends: Sequence[float | None] | None, *, signed: bool = False
) -> str:
    """A fraction as per cent, its interval behind it."""
    behind = "" if value is None else bracketed(ends)
    return percent(value, signed=signed) + (behind and f" {behind}")


def bracketed(ends: Sequence[float | None] | None) -> str:
    """Two fractions as per cent in brackets; empty without both."""
    low, high = ends or (None, None)
    if low is None or high is None:
        return ""
    return f"[{100 * low:.1f}, {100 * high:.1f}]".replace("-", "\u2212")


def estimate(
    condition: Mapping[str, Any], metric: str
) -> tuple[float | None, float | None, float | None]:
    """A number of a condition with its 95 % interval, if it has one.

    Args:
        condition: see `lfpc.evaluation.results.condition_results`.
        metric: "accuracy", "noise_drop", or a mean of the summary.
    """
    if metric == "noise_drop":
        row = lost(condition, "noise")
        return row.get("delta"), row.get("low"), row.get("high")
    summary = condition["summary"]
    interval = condition["iou_ci"] if metric == "iou" else summary.get(f"{metric}_ci")
    low, high = interval or (None, None)
    return summary[metric], low, high


def interval_text(condition: Mapping[str, Any], metric: str) -> str:
    """`estimate` as per cent."""
    value, low, high = estimate(condition, metric)
    return with_interval(value, [low, high])


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
    """A p-value as text."""
    return NOTHING if value is None else p_text(value)


def episodes_link(
    arm: str, budget: str, show: str = "all", *, beside: Sequence[str] = (), **more: str
) -> str:
    """Address of the episodes of one arm and budget; `show` names a filter, `beside` another (arm,
    budget).
    """
    other = dict(zip(("with-arm", "with-budget"), beside, strict=False))
    return "episodes.html#" + urlencode(
        {"arm": arm, "budget": budget, **other, "show": show, **more}
    )


def conditions(results: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """(arm, budget name, results), in the order of evaluation."""
    for arm, budgets in results["conditions"].items():
        for budget, found in budgets.items():
            yield arm, budget, found


def page_tables(results: Mapping[str, Any], run_comparisons: Sequence[Row] = ()) -> list[Table]:
    """Every non-empty table of the page.

    Args:
        results: content of `results.json`; see `lfpc.evaluation.stored`.
        run_comparisons: differences between several runs.
    """
    compared = results.get("comparisons", {})
    tables = [
        accuracy_table(results),
        probe_table(results),
        localisation_table(results),
        efficiency_table(results),
        difference_table("differences", "Differences", compared.get("differences", ())),
        difference_table("ablations", "Ablations", compared.get("ablations", ())),
        difference_table("runs", "Run against run", run_comparisons),
        category_table(results),
    ]
    return [table for table in tables if table.rows]


def accuracy_table(results: Mapping[str, Any]) -> Table:
    """Accuracy with a row per arm and a column per budget."""
    budgets = list(dict.fromkeys(budget for _, budget, _ in conditions(results)))

    def head(budget: str) -> str:
        known = sorted(
            found["summary"]["chance"]
            for _, at, found in conditions(results)
            if at == budget and found["summary"].get("chance") is not None
        )
        ends = dict.fromkeys(map(percent, known[:1] + known[-1:]))
        return f"{budget} budget" + (f" (chance {' to '.join(ends)})" if ends else "")

    def cell(arm: str, budget: str) -> Cell:
        found = results["conditions"][arm].get(budget)
        if found is None:
            return Cell(NOTHING)
        return Cell(
            interval_text(found, "accuracy") + share(found["summary"]["incomplete"]),
            episodes_link(arm, budget, "wrong"),
        )

    rows = tuple(
        (Cell(arm), *(cell(arm, budget) for budget in budgets)) for arm in results["conditions"]
    )
    note = (
        "Share of questions answered rightly, with its 95 % interval. Failed and undecided "
        'questions count as wrong: "(14 of 16)" are the ones with a verdict.'
    )
    return Table("accuracy", "Accuracy", note, ("arm", *map(head, budgets)), rows)


def probe_table(results: Mapping[str, Any]) -> Table:
    """Accuracy lost under each probe."""
    ran = [
        probe
        for probe in PROBE_NAMES
        if any(probe in found["probes"] for *_, found in conditions(results))
    ]
    shows = {"noise": "fooled", "truth": "truth-helps"}

    def cells(arm: str, budget: str, found: Mapping[str, Any]) -> Iterable[Cell]:
        yield Cell(f"{arm}, {budget}")
        pairs = {lost(found, probe).get("n", 0) for probe in ran if probe in found["probes"]}
        yield Cell(
            " to ".join(number(n, 0) for n in sorted({min(pairs), max(pairs)}))
            if pairs
            else NOTHING
        )
        for probe in ran:
            text = points(lost(found, probe)) + share(_incomplete(found, probe))
            yield Cell(
                text, episodes_link(arm, budget, shows.get(probe, "all")) if text != NOTHING else ""
            )

    rows = tuple(tuple(cells(*one)) for one in conditions(results)) if ran else ()
    note = (
        "Accuracy lost, in points, when something else is shown for every crop, with its 95 % "
        "interval; pairs of answers to the same question, fewer where only some have boxes."
    )
    if "repeat" in ran:
        note += " The last column repeats the ordinary run, to show chance."
    return Table(
        "probes",
        "Crop dependence",
        note,
        ("condition", "pairs", *(PROBE_NAMES[probe] for probe in ran)),
        rows,
    )


def _incomplete(found: Mapping[str, Any], probe: str) -> Shortfall | None:
    """What the records of a probe lack; None: nothing, or a probe that did not run."""
    return found["probes"].get(probe, {}).get("incomplete")


def localisation_table(results: Mapping[str, Any]) -> Table:
    """Localisation of the policy's crops."""
    rows = tuple(
        (
            Cell(f"{arm}, {budget}"),
            Cell(percent(found["summary"]["tool_rate"]), episodes_link(arm, budget, "no-crop")),
            Cell(
                interval_text(found, "iou"),
                episodes_link(arm, budget, sort="iou"),
            ),
            *(
                Cell(percent(found["summary"][key]), episodes_link(arm, budget, sort="iou"))
                for key in ("iou_first", "iou_best", "coverage")
            ),
            Cell(percent(found["summary"]["crop_area"]), episodes_link(arm, budget, sort="area")),
        )
        for arm, budget, found in conditions(results)
    )
    note = (
        "IoU with the best fitting nested truth box, over questions with a crop; coverage of "
        "the tightest box; area of the last crop."
    )
    columns = (
        "condition",
        "shows a crop",
        "IoU, last crop",
        "IoU, first",
        "IoU, best",
        "coverage, last",
        "area, median",
    )
    return Table("localisation", "Localisation", note, columns, rows)


def efficiency_table(results: Mapping[str, Any]) -> Table:
    """Cost per question."""
    sorts = {
        "visual_tokens": "tokens",
        "global_tokens": "tokens",
        "crops": "turns",
        "n_turns": "turns",
    }
    rows = tuple(
        (
            Cell(f"{arm}, {budget}"),
            *(
                Cell(number(found["summary"][key]), episodes_link(arm, budget, sort=sort))
                for key, sort in sorts.items()
            ),
            Cell(
                number(found["summary"]["seconds"], 3),
                episodes_link(arm, budget, sort="seconds"),
            ),
            Cell(number(found["seconds_alone"], 3)),
        )
        for arm, budget, found in conditions(results)
    )
    note = (
        "Means per question; visual tokens are those of the first view and of all crops together. "
        "Seconds as played: each question's share of its batch, or its own with others at the same "
        "time; alone: median of questions that were asked once more, one at a time."
    )
    return Table(
        "cost",
        "Cost",
        note,
        (
            "condition",
            "visual tokens",
            "of the first view",
            "crops",
            "replies",
            "seconds as played",
            "seconds alone",
        ),
        rows,
    )


def category_table(results: Mapping[str, Any]) -> Table:
    """Accuracy by the category of the question; without rows if there is only one."""
    names = list(
        dict.fromkeys(
            name for *_, found in conditions(results) for name in found["summary"]["categories"]
        )
    )

    def cell(arm: str, budget: str, found: Mapping[str, Any], name: str) -> Cell:
        group = found["summary"]["categories"].get(name)
        text = f"{percent(group['accuracy'])} of {group['n']:,}" if group else NOTHING
        return Cell(
            text, episodes_link(arm, budget, "wrong", **({"category": name} if name else {}))
        )

    several = len(names) > 1
    rows = tuple(
        (Cell(f"{arm}, {budget}"), *(cell(arm, budget, found, name) for name in names))
        for arm, budget, found in conditions(results)
    )
    columns = ("condition", *(name or "none" for name in names))
    return Table(
        "categories",
        "Accuracy by category",
        "Share answered rightly of each category's questions.",
        columns,
        rows if several else (),
    )


def difference_table(name: str, title: str, differences: Sequence[Mapping[str, Any]]) -> Table:
    """Planned comparisons, each with a link to the questions on which the two sides differ.

    With several training seeds there is a second interval, over questions and seeds.
    """
    several = any(row.get("over_seeds") for row in differences)
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
            *([Cell(bracketed(row.get("over_seeds")))] if several else []),
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
    if several:
        note += " The second interval is over questions and training seeds."
    columns = (
        "left \u2212 right",
        "difference",
        *(["over seeds too"] if several else []),
        "p",
        "p, adjusted",
        "pairs",
        "questions",
    )
    return Table(name, title, note, columns, rows)


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
        "crop area",
        "visual tokens",
        "seconds alone",
    )
    rows = [
        (
            arm,
            budget,
            interval_text(found, "accuracy") + share(found["summary"]["incomplete"]),
            interval_text(found, "noise_drop") + share(_incomplete(found, "noise")),
            *(percent(found["summary"][key]) for key in ("tool_rate", "iou", "crop_area")),
            number(found["summary"]["visual_tokens"], 0),
            number(found["seconds_alone"], 3),
        )
        for arm, budget, found in conditions(results)
    ]
    text = markdown(columns, rows, left=2)
    comparisons = results.get("comparisons")
    if not comparisons:
        return text
    text += "\n" + table_markdown(
        difference_table("differences", "Differences", comparisons.get("differences", ()))
    )
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
        "\n" + markdown(("full baseline / small Stage II", "ratio"), saved, left=1) if saved else ""
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
    """A text with LaTeX's special characters escaped."""
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
