"""The figures of a report, from results, curves and data."""

from collections.abc import Mapping, Sequence
from math import floor, log2
from typing import Any

from lfpc.evaluation.results import lost
from lfpc.report.cells import conditions, episodes_link, estimate, lost_kind, probe_name
from lfpc.report.evidence import DataFacts, Evidence
from lfpc.report.figures import Bars, IntervalEstimate, Points, against, bars, points
from lfpc.report.names import Namer, budget_text, results_namer, split_budget

Estimates = dict[str, dict[str, IntervalEstimate]]


def result_figures(results: Mapping[str, Any]) -> list[Points]:
    """Accuracy against visual tokens first; accuracy lost under noise and IoU by condition; and the
    accuracy lost under each further probe. Figures of one estimate are left out.
    """
    name = results_namer(results)
    found = [
        _main(results, name),
        points(
            "noise-drop",
            "Accuracy lost under noise, in points",
            _by_budget(results, "noise_drop", lost_kind("noise")),
            of="budget",
            unit="points",
        ),
        points("iou", "IoU of the last crop", _by_budget(results, "iou", "crop"), of="budget"),
        *(
            _probes(results, budget)
            for budget in dict.fromkeys(budget for _, budget, _ in conditions(results))
        ),
    ]
    return [figure for figure in found if len(figure.marks) > 1]


def _main(results: Mapping[str, Any], name: Namer) -> Points:
    """Accuracy against visual tokens, a line for each arm and task."""
    series: dict[str, list[tuple[str, float, IntervalEstimate]]] = {}
    several = len(results["conditions"]) > 1
    for arm, budget, found in conditions(results):
        value, low, high = estimate(found, "accuracy")
        tokens = found["summary"]["visual_tokens"]
        if value is None or not tokens:
            continue
        one = IntervalEstimate(value, low, high, episodes_link(arm, budget, "right"))
        task = split_budget(budget)[0]
        label = ", ".join(part for part in (arm if several or not task else "", task) if part)
        series.setdefault(label, []).append((name(arm, budget), tokens, one))
    return against(
        "accuracy",
        "Accuracy against visual tokens per question (log axis)",
        series,
        over="visual tokens",
    )


def _by_budget(results: Mapping[str, Any], metric: str, show: str) -> Estimates:
    places: Estimates = {}
    for arm, budget, found in conditions(results):
        value, low, high = estimate(found, metric)
        if value is not None:
            link = episodes_link(arm, budget, show)
            one = IntervalEstimate(value, low, high, link)
            places.setdefault(budget_text(budget), {})[arm] = one
    return places


def _probes(results: Mapping[str, Any], budget: str) -> Points:
    places: Estimates = {}
    for arm, its_budget, found in conditions(results):
        for probe in found["probes"] if its_budget == budget else ():
            if row := lost(found, probe):
                link = episodes_link(arm, budget, lost_kind(probe))
                one = IntervalEstimate(row["delta"], row["low"], row["high"], link)
                places.setdefault(probe_name(probe), {})[arm] = one
    name = "probes-" + "".join(sign if sign.isalnum() else "-" for sign in budget)
    title = f"Accuracy lost by what is shown for a crop, in points, {budget_text(budget)}"
    return points(name, title, places if len(places) > 1 else {}, of="shown", unit="points")


def data_figures(data: Mapping[str, DataFacts]) -> list[Bars]:
    """Figures of each training set: chosen budgets, categories, areas of the targets."""
    figures: list[Bars] = []
    for n, (name, facts) in enumerate(data.items(), 1):
        of = f"{name}, {facts.count:,} questions"
        figures += [
            bars(
                f"budgets-{n}",
                f"Chosen first-view budgets, visual tokens ({of})",
                facts.budgets,
                of="budget",
            ),
            bars(f"categories-{n}", f"Categories ({of})", _most(facts.categories), of="category"),
            bars(
                f"targets-{n}",
                f"Area of the targets, share of the picture ({of})",
                _by_octave(facts.areas),
                of="area",
            ),
        ]
    return [figure for figure in figures if figure.bars]


def _most(counts: Mapping[str, int], shown: int = 7) -> dict[str, int]:
    """The largest counts, with the sum of the others."""
    order = sorted(counts.items(), key=lambda item: -item[1])
    rest = sum(count for _, count in order[shown:])
    return {**dict(order[:shown]), **({"others": rest} if rest else {})}


def _by_octave(areas: Sequence[float]) -> dict[str, int]:
    """Counts of areas between consecutive powers of two."""
    octaves = [floor(log2(area)) for area in areas if area > 0]
    if not octaves:
        return {}
    return {
        f"{2.0**k:.1%}" if k > -10 else f"{2.0**k:.3%}": octaves.count(k)
        for k in range(min(octaves), max(octaves) + 1)
    }


def config_table(
    evidence: Evidence,
) -> tuple[list[tuple[str, str]], list[str], list[tuple[str, list[str]]]]:
    """Configurations of the runs: (common entries, names of the runs, entries that differ)."""
    flat: dict[str, dict[str, str]] = {}
    for (arm, budget, probe, seed), origin in evidence.origins.items():
        if probe == "own" and seed == 0:
            flat[f"{arm}, {budget}"] = _flat(
                {"config": origin.config, "environment": origin.environment}
            )
    keys = list(dict.fromkeys(key for some in flat.values() for key in some))
    rows = [(key, [some.get(key, "\u2013") for some in flat.values()]) for key in keys]
    return (
        [(key, row[0]) for key, row in rows if len(set(row)) == 1],
        list(flat),
        [(key, row) for key, row in rows if len(set(row)) > 1],
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            found |= _flat(inner, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}".removeprefix("config.").removeprefix("environment.")] = str(
                inner
            )
    return found
