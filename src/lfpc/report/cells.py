"""Cells of text tables: their numbers, their links to episodes, and the best of a column."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from lfpc.evaluation.incomplete import Shortfall
from lfpc.evaluation.probes import REPLAYED
from lfpc.evaluation.results import lost
from lfpc.report.numbers import NOTHING, with_interval

PROBE_NAMES = {
    "noise": "noise",
    "noise-added": "noise added",
    "truth": "truth box",
    "truth-wide": "truth box, wide",
    "truth-each": "each truth box",
    "other": "other picture",
    "mean": "mean colour",
    "black": "black crop",
    "blur": "blurred crop",
    "random": "random place",
    "whole": "whole picture",
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
    best: bool = False
    """Whether it is the best of its column."""


Cells = tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; the first cell of a row is its label."""

    name: str
    """Base name of its files."""
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[Cells, ...]


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


def probe_name(probe: str) -> str:
    """What a probe shows for a crop, in words; a replayed one has its mark."""
    played = probe.removesuffix(REPLAYED)
    return PROBE_NAMES.get(played, played) + probe.removeprefix(played)


def lost_kind(probe: str) -> str:
    """The filter of the episodes whose answer `probe` changed: from wrong to right for a truth box,
    else from right to wrong.
    """
    return f"{'gained' if probe.startswith('truth') else 'lost'}-{probe}"


def conditions(results: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    """(arm, budget name, results), in the order of evaluation."""
    for arm, budgets in results["conditions"].items():
        for budget, found in budgets.items():
            yield arm, budget, found


def incomplete(found: Mapping[str, Any], probe: str) -> Shortfall | None:
    """What the records of a probe lack; None: nothing, or a probe that did not run."""
    return found["probes"].get(probe, {}).get("incomplete")


def filled(table: Table) -> Table:
    """The table without columns that are empty in every row."""
    kept = [
        n
        for n in range(len(table.columns))
        if n == 0 or any(row[n].text != NOTHING for row in table.rows)
    ]
    rows = tuple(tuple(row[n] for n in kept) for row in table.rows)
    return replace(table, columns=tuple(table.columns[n] for n in kept), rows=rows)


def marked(
    rows: Sequence[Cells], values: Mapping[int, Sequence[float | None]], groups: Sequence[str]
) -> tuple[Cells, ...]:
    """The rows, with the largest of each column in `values` (by its number) marked in every group
    of rows that do not agree.
    """
    found = [list(row) for row in rows]
    for column, some in values.items():
        for group in dict.fromkeys(groups):
            here = {i: v for i, v in enumerate(some) if groups[i] == group and v is not None}
            if len(set(here.values())) < 2:
                continue
            for i, value in here.items():
                if value == max(here.values()):
                    found[i][column] = replace(found[i][column], best=True)
    return tuple(map(tuple, found))
