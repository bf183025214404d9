"""The results of evaluations: a summary for each condition, and what each probe costs there.

The same for `lfpc eval`, `lfpc probe` and `lfpc demo`; `stored` keeps them in `results.json`.
Accuracy pools all seeds of a condition. Everything is a fraction, never a percentage.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from statistics import fmean
from typing import Any, NamedTuple

from lfpc.evaluation.differences import adjust, difference_row, field, score
from lfpc.evaluation.probes import OWN, REPEAT, paired
from lfpc.metrics.statistics import bootstrap_interval
from lfpc.metrics.summary import Records, Timing
from lfpc.published.benchmarks import score_task
from lfpc.records import EpisodeRecord

REPLAYED = " (replay)"
"""Ending of the name of a probe that replayed the recorded replies up to the first crop."""


class Condition(NamedTuple):
    """What tells evaluations of one study apart."""

    arm: str
    """The trained policy; empty where there is only one."""
    budget: str
    """Name of the first view's budget, with the task before it where there are several."""
    probe: str
    seed: int


AllRecords = Mapping[Condition, Records]
Cell = tuple[str, str]
"""(arm, budget)."""
Timings = Mapping[Cell, Sequence[Timing]]


def pooled(records: AllRecords, arm: str, budget: str, probe: str = OWN) -> list[EpisodeRecord]:
    """Records of one arm, budget and probe over all seeds; each names its seed."""
    return [
        replace(record, seed=condition.seed)
        for condition, some in records.items()
        if condition[:3] == (arm, budget, probe)
        for record in some
    ]


def cells(records: AllRecords) -> list[Cell]:
    """(arm, budget) of every ordinary evaluation, in order."""
    found = ((one.arm, one.budget) for one in records if one.probe == OWN)
    return list(dict.fromkeys(found))


def all_results(
    records: AllRecords,
    *,
    timings: Timings | None = None,
    tasks: Mapping[Cell, str] | None = None,
) -> dict[str, Any]:
    """Results of every condition.

        {"questions": n, "seeds": [...], "conditions": {arm: {budget: condition_results}}}

    Args:
        records: by condition.
        timings: seconds per question, measured apart from the records.
        tasks: benchmarks, by whose rules answers are counted.
    """
    conditions: dict[str, dict[str, Any]] = {}
    for arm, budget in cells(records):
        probes = dict.fromkeys(
            one.probe for one in records if (one.arm, one.budget) == (arm, budget)
        )
        by_probe = {probe: pooled(records, arm, budget, probe) for probe in probes}
        conditions.setdefault(arm, {})[budget] = condition_results(
            by_probe,
            (timings or {}).get((arm, budget), ()),
            task=(tasks or {}).get((arm, budget), ""),
        )
    return {
        "questions": len({record.sample.id for some in records.values() for record in some}),
        "seeds": sorted({condition.seed for condition in records}),
        "conditions": conditions,
    }


def condition_results(
    by_probe: Mapping[str, Records], timings: Sequence[Timing] = (), *, task: str = ""
) -> dict[str, Any]:
    """What one policy does at one budget, and what each probe costs it.

    Args:
        by_probe: records by probe; "own" is there.
        timings: seconds per question, measured apart from the records.
        task: the benchmark by whose rule answers are counted; empty: the mean over questions.
    Returns:
        "summary" of the ordinary evaluation; "iou_ci"; "accuracy_by_seed"; "seconds_per_question":
        asked one at a time where that was measured, else the records' mean;
        "probes": for each probe "accuracy", "failed", and the accuracy lost as a difference row
        over "all" questions and over those on which a crop was shown ("tool"; None: there are
        none). p_holm is adjusted over the probes, without "repeat", which tests nothing new.
    """
    own = by_probe[OWN]
    used = [record for record in own if record.tool]
    probes = {
        probe: {
            "accuracy": fmean(record.score for record in shown) if shown else None,
            "failed": sum(record.failed for record in shown),
            "all": difference_row(own, shown),
            "tool": difference_row(used, shown),
        }
        for probe, shown in by_probe.items()
        if probe != OWN
    }
    tested = {probe: row for probe, row in probes.items() if probe != REPEAT}
    for name in ("all", "tool"):
        for replay in (False, True):
            some = (row[name] for probe, row in tested.items() if (REPLAYED in probe) == replay)
            adjust([row for row in some if row])
    summary = score_task(task, own) | {"timings": [asdict(timing) for timing in timings]}
    alone = next((timing.median for timing in timings if timing.concurrency == 1), None)
    return {
        "summary": summary,
        "iou_ci": _mean_interval(own, "iou"),
        "accuracy_by_seed": _by_seed(own, lambda some: fmean(record.score for record in some)),
        "seconds_per_question": summary["seconds"] if alone is None else alone,
        "probes": probes,
    }


def lost(condition: Mapping[str, Any], probe: str) -> Mapping[str, Any]:
    """The difference row of accuracy lost under `probe`, over all questions; empty where the probe
    was not run.
    """
    return condition["probes"].get(probe, {}).get("all") or {}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A difference left - right that was planned before the numbers were seen."""

    metric: str
    """"accuracy", "noise_drop", or a field of records ("iou", "crop_area"), paired where both sides
    have it."""
    left: Cell
    right: Cell


PLANNED = (
    Comparison("noise_drop", ("stage1", "small"), ("baseline", "small")),
    Comparison("accuracy", ("stage1", "small"), ("baseline", "small")),
    Comparison("accuracy", ("stage2", "small"), ("stage1", "small")),
    Comparison("iou", ("stage2", "small"), ("stage1", "small")),
    Comparison("crop_area", ("stage2", "small"), ("stage1", "small")),
    Comparison("accuracy", ("stage2", "small"), ("baseline", "full")),
)
"""The paper's claims: Stage I makes crops matter and helps, Stage II localises better and loses
nothing, the small budget suffices."""

COMPARED = ("accuracy", "noise_drop", "iou")
"""Metrics of comparisons that are not the paper's."""
RATIOS = (("stage2", "small"), ("baseline", "full"))
"""Whose tokens and seconds are divided: the second by the first."""


def comparisons(
    records: AllRecords, *, planned: Sequence[Comparison] = PLANNED
) -> list[dict[str, Any]]:
    """A row for each planned comparison whose two sides were evaluated: name, metric, left, right
    (cells), and the difference row's delta, low, high, p, p_holm (adjusted for the number of
    rows), n, clusters, and mcnemar_p where each question has one verdict.
    """
    rows = [row for plan in planned if (row := _compared(records, plan))]
    adjust(rows)
    return rows


def ablation_comparisons(records: AllRecords) -> list[Comparison]:
    """Each arm against the arm whose name its own begins with: ablations and their parents."""
    found = cells(records)
    arms = list(dict.fromkeys(arm for arm, _ in found))
    pairs = [(arm, parent) for arm in arms for parent in arms if arm.startswith(f"{parent}-")]
    return [
        Comparison(metric, (arm, budget), (parent, budget))
        for arm, parent in pairs
        for budget in (budget for some, budget in found if some == arm)
        for metric in COMPARED
    ]


def _compared(records: AllRecords, plan: Comparison) -> dict[str, Any] | None:
    if plan.metric == "noise_drop":
        row = difference_row(
            _with_drop(records, plan.left), _with_drop(records, plan.right), score_drop
        )
    else:
        value = score if plan.metric == "accuracy" else field(plan.metric)
        row = difference_row(pooled(records, *plan.left), pooled(records, *plan.right), value)
    if row is None:
        return None
    return row | {
        "name": f"{' '.join(plan.left)} - {' '.join(plan.right)}",
        "metric": plan.metric,
        "left": list(plan.left),
        "right": list(plan.right),
    }


def score_drop(record: EpisodeRecord) -> float:
    """The verdict of a record that `with_drop` made: what was lost."""
    return float(record.correct or 0)


def with_drop(own: Records, probe: Records) -> list[EpisodeRecord]:
    """Records of `own` with a partner in `probe`, whose `correct` is what the probe loses there."""
    return [replace(a, correct=a.score - b.score) for a, b in paired(own, probe)]


def _with_drop(records: AllRecords, cell: Cell) -> list[EpisodeRecord]:
    return with_drop(pooled(records, *cell), pooled(records, *cell, "noise"))


def ratios(conditions: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """How many times more visual tokens and seconds the baseline takes at full budget than Stage II
    at the small one, and how many times more Stage I loses under noise than the baseline; None: not
    evaluated.
    """

    def at(cell: Cell) -> Mapping[str, Any] | None:
        return conditions.get(cell[0], {}).get(cell[1])

    def ratio(large: Any, small: Any) -> float | None:
        return large / small if large is not None and small is not None and small > 0 else None

    def tokens(cell: Cell) -> Any:
        found = at(cell)
        return found and found["summary"]["visual_tokens"]

    def seconds(cell: Cell) -> Any:
        found = at(cell)
        return found and found["seconds_per_question"]

    def drop(cell: Cell) -> Any:
        found = at(cell)
        return found and lost(found, "noise").get("delta")

    ours, theirs = RATIOS
    return {
        "visual_tokens": ratio(tokens(theirs), tokens(ours)),
        "seconds_per_question": ratio(seconds(theirs), seconds(ours)),
        "noise_drop": ratio(drop(("stage1", "small")), drop(("baseline", "small"))),
    }


def _mean_interval(records: Records, key: str) -> list[float | None]:
    having = [record for record in records if getattr(record, key) is not None]
    interval = bootstrap_interval(
        [getattr(record, key) for record in having], [record.cluster for record in having]
    )
    return [value if isfinite(value) else None for value in interval]


def _by_seed(records: Records, value: Callable[[Records], float]) -> dict[str, float]:
    seeds = sorted({record.seed or 0 for record in records})
    return {
        str(seed): value([record for record in records if (record.seed or 0) == seed])
        for seed in seeds
    }
