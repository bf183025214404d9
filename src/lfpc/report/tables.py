"""Results as text tables, for the page, the README and a paper."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lfpc.evaluation.gain import NOTHING as NO_GAIN
from lfpc.evaluation.incomplete import share
from lfpc.evaluation.probes import REPEAT, REPLAYED
from lfpc.evaluation.results import lost
from lfpc.report.cells import (
    METRIC_NAMES,
    PROBE_NAMES,
    Cell,
    Table,
    conditions,
    episodes_link,
    estimate,
    filled,
    incomplete,
    interval_text,
    lost_kind,
    marked,
    probe_name,
)
from lfpc.report.names import Namer, results_namer, split_budget
from lfpc.report.numbers import (
    NOTHING,
    nats,
    number,
    p_value,
    percent,
    points,
)
from lfpc.report.replaced_table import replaced_table
from lfpc.report.use_tables import known_table, use_table


def page_tables(
    results: Mapping[str, Any], run_comparisons: Sequence[Mapping[str, Any]] = ()
) -> list[Table]:
    """Every non-empty table of the page.

    Args:
        results: content of `results.json`; see `lfpc.evaluation.stored`.
        run_comparisons: differences between several runs.
    """
    compared = results.get("comparisons", {})
    name = results_namer(results)
    tables = [
        results_table(results, name),
        probe_table(results, name),
        gain_table(results, name),
        replaced_table(results, name),
        use_table(results, name),
        known_table(results, name),
        localisation_table(results, name),
        efficiency_table(results, name),
        difference_table("differences", "Differences", compared.get("differences", ()), name),
        difference_table("ablations", "Ablations", compared.get("ablations", ()), name),
        difference_table("runs", "Run against run", run_comparisons, name),
        category_table(results, name),
    ]
    kept = [filled(table) for table in tables if table.rows]
    return [table for table in kept if len(table.columns) > 1]


def results_table(results: Mapping[str, Any], name: Namer) -> Table:
    """The main figures, a row per task, arm and budget."""
    found = list(conditions(results))

    def cells(arm: str, budget: str, one: Mapping[str, Any]) -> Iterable[Cell]:
        summary = one["summary"]
        yield Cell(name(arm, budget))
        yield Cell(number(summary["n"], 0), episodes_link(arm, budget))
        yield Cell(percent(summary.get("chance")))
        accuracy = interval_text(one, "accuracy") + share(summary["incomplete"])
        yield Cell(accuracy, episodes_link(arm, budget, "right"))
        yield Cell(percent(summary["tool_rate"]), episodes_link(arm, budget, "crop"))
        text = points(lost(one, "noise")) + share(incomplete(one, "noise"))
        yield Cell(text, episodes_link(arm, budget, lost_kind("noise")) if text != NOTHING else "")
        yield Cell(number(summary["visual_tokens"], 0), episodes_link(arm, budget, sort="tokens"))

    values = {3: [estimate(one, "accuracy")[0] for *_, one in found]}
    groups = [split_budget(budget)[0] for _, budget, _ in found]
    return Table(
        "accuracy",
        "Results",
        "Accuracy: share answered rightly, with its 95 % interval; failed and undecided questions "
        'count as wrong, and "(14 of 16)" are those with a verdict. Lost under noise: accuracy '
        "lost when noise is shown for every crop, in points. Visual tokens: first view and crops "
        "together. Bold: the best accuracy. Numbers lead to their episodes.",
        (
            "condition",
            "questions",
            "chance",
            "accuracy",
            "shows a crop",
            "lost under noise",
            "visual tokens",
        ),
        marked([tuple(cells(*one)) for one in found], values, groups),
    )


def probe_table(results: Mapping[str, Any], name: Namer) -> Table:
    """Accuracy lost under each probe."""
    ran = [
        name
        for probe in PROBE_NAMES
        for name in (probe, f"{probe}{REPLAYED}")
        if any(name in found["probes"] for *_, found in conditions(results))
    ]

    def cells(arm: str, budget: str, found: Mapping[str, Any]) -> Iterable[Cell]:
        yield Cell(name(arm, budget))
        yield Cell(
            _range([lost(found, probe).get("n", 0) for probe in ran if probe in found["probes"]])
        )
        for probe in ran:
            text = points(lost(found, probe)) + share(incomplete(found, probe))
            shown = episodes_link(arm, budget, lost_kind(probe))
            yield Cell(text, shown if text != NOTHING and probe in PROBE_NAMES else "")

    rows = tuple(tuple(cells(*one)) for one in conditions(results)) if ran else ()
    note = (
        "Accuracy lost, in points, when something else is shown for every crop, with its 95 % "
        "interval over questions, and over training seeds if there are several; pairs of answers "
        "to the same question, fewer where only some have boxes."
    )
    if any(REPLAYED in probe for probe in ran):
        note += (
            " Replay: the recorded replies up to the first crop are kept, so that only what "
            "follows can differ."
        )
    if any(probe.startswith(REPEAT) for probe in ran):
        note += f" {PROBE_NAMES[REPEAT].capitalize()}: repeats the ordinary run, to show chance."
    return Table(
        "probes",
        "Crop dependence",
        note,
        ("condition", "pairs", *(probe_name(probe) for probe in ran)),
        rows,
    )


def _range(counts: Sequence[int]) -> str:
    """The smallest and the largest of some counts."""
    ends = sorted({min(counts), max(counts)}) if counts else ()
    return " to ".join(number(n, 0) for n in ends) or NOTHING


def gain_table(results: Mapping[str, Any], name: Namer) -> Table:
    """The gain of a crop over each look; without rows if `lfpc probe --gain` has not run."""

    def cells(arm: str, budget: str, look: str, row: Mapping[str, Any]) -> Iterable[Cell]:
        shown = episodes_link(arm, budget, "crop", sort="gain", descending="1")
        yield Cell(f"{name(arm, budget)}: {probe_name(look)}")
        yield Cell(nats(row), shown if look == "noise" else "")
        yield Cell(p_value(row["p"]))
        yield Cell(p_value(row.get("p_holm")))
        for share_of in ("helped", "nothing", "hurt"):
            yield Cell(percent(row[share_of]))
        yield Cell(number(row["n"], 0))

    rows = tuple(
        tuple(cells(arm, budget, look, row))
        for arm, budget, found in conditions(results)
        for look, row in (found.get("gain") or {"looks": {}})["looks"].items()
    )
    note = (
        "Log-probability of the right answer after the own crop, minus that with something else in "
        "its place, in nats, with its 95 % interval. A crop helped or hurt a question by more than "
        f"{NO_GAIN} nats; else it did nothing. p is adjusted for the number of looks (Holm)."
    )
    columns = (
        "in place of the crop",
        "gain, nats",
        "p",
        "p, adjusted",
        "helped",
        "nothing",
        "hurt",
        "questions",
    )
    return Table("gain", "Gain of a crop", note, columns, rows)


def localisation_table(results: Mapping[str, Any], name: Namer) -> Table:
    """Localisation of the policy's crops."""
    found = list(conditions(results))
    keys = ("iou", "iou_first", "iou_best", "coverage")

    def cells(arm: str, budget: str, one: Mapping[str, Any]) -> Iterable[Cell]:
        yield Cell(name(arm, budget))
        for key in keys:
            text = interval_text(one, key) if key == "iou" else percent(one["summary"][key])
            yield Cell(text, episodes_link(arm, budget, "crop", sort="iou"))
        yield Cell(
            percent(one["summary"]["crop_area"]), episodes_link(arm, budget, "crop", sort="area")
        )

    values = {n: [one["summary"][key] for *_, one in found] for n, key in enumerate(keys, 1)}
    groups = [split_budget(budget)[0] for _, budget, _ in found]
    rows = marked([tuple(cells(*one)) for one in found], values, groups)
    boxed = any(one["summary"]["iou"] is not None for *_, one in found)
    note = (
        "IoU with the best fitting nested truth box, over questions with a crop; coverage of "
        "the tightest box; area of the last crop."
    )
    columns = (
        "condition",
        "IoU, last crop",
        "IoU, first",
        "IoU, best",
        "coverage, last",
        "area, median",
    )
    return Table("localisation", "Localisation", note, columns, rows if boxed else ())


def efficiency_table(results: Mapping[str, Any], name: Namer) -> Table:
    """Cost per question."""
    sorts = {
        "visual_tokens": "tokens",
        "global_tokens": "tokens",
        "crops": "turns",
        "n_turns": "turns",
    }
    rows = tuple(
        (
            Cell(name(arm, budget)),
            *(
                Cell(number(found["summary"][key]), episodes_link(arm, budget, sort=sort))
                for key, sort in sorts.items()
            ),
            Cell(
                number(found["summary"]["seconds"], 3),
                episodes_link(arm, budget, sort="seconds"),
            ),
            Cell(number(found["seconds_alone"], 3)),
            Cell(number(found.get("cpu_seconds_alone"), 3)),
        )
        for arm, budget, found in conditions(results)
    )
    note = (
        "Means per question; visual tokens are those of the first view and of all crops together. "
        "Seconds as played: each question's share of its batch, or its own with others at the same "
        "time."
    )
    if any(found["seconds_alone"] is not None for *_, found in conditions(results)):
        note += (
            " Alone: median of questions that were asked once more, one at a time; CPU: of all "
            "threads of this process."
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
            "CPU seconds alone",
        ),
        rows,
    )


def category_table(results: Mapping[str, Any], name: Namer) -> Table:
    """Accuracy by the category of the question; without rows if there is only one."""
    found = list(conditions(results))
    categories = list(
        dict.fromkeys(name for *_, one in found for name in one["summary"]["categories"])
    )

    def cell(arm: str, budget: str, one: Mapping[str, Any], category: str) -> Cell:
        group = one["summary"]["categories"].get(category)
        if not group:
            return Cell(NOTHING)
        chosen = {"category": category} if category else {}
        return Cell(
            f"{percent(group['accuracy'])} of {group['n']:,}",
            episodes_link(arm, budget, "right", **chosen),
        )

    rows = [
        (Cell(name(arm, budget)), *(cell(arm, budget, one, category) for category in categories))
        for arm, budget, one in found
    ]
    values = {
        n: [one["summary"]["categories"].get(category, {}).get("accuracy") for *_, one in found]
        for n, category in enumerate(categories, 1)
    }
    groups = [split_budget(budget)[0] for _, budget, _ in found]
    return Table(
        "categories",
        "Accuracy by category",
        "Share answered rightly of each category's questions.",
        ("condition", *(category or "none" for category in categories)),
        marked(rows, values, groups) if len(categories) > 1 else (),
    )


def _difference(left: str, right: str) -> str:
    """The names of two conditions, a shared budget once."""
    arm, _, budget = left.rpartition(", ")
    shared = arm and right.endswith(f", {budget}")
    return f"{arm if shared else left} \u2212 {right}"


def difference_table(
    file: str, title: str, differences: Sequence[Mapping[str, Any]], name: Namer
) -> Table:
    """Planned comparisons, each with a link to the questions on which the two sides differ."""
    rows = tuple(
        (
            Cell(
                f"{_difference(name(*row['left']), name(*row['right']))}: "
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
        "In points, paired by question and seed; bootstrap interval and p over questions, and over "
        "training seeds if there are several; p adjusted for the number of rows (Holm)."
    )
    columns = (
        "left \u2212 right",
        "difference",
        "p",
        "p, adjusted",
        "pairs",
        "questions",
    )
    return Table(file, title, note, columns, rows)
