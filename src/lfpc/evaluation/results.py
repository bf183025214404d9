"""Results of evaluations: a summary per condition, and the accuracy lost under each probe.

`lfpc eval`, `lfpc probe` and `lfpc demo` share them; `stored` writes them to `results.json`.
Accuracy pools all seeds of a condition. Shares are fractions, not percentages.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import exp, isfinite, log
from statistics import fmean
from typing import Any, NamedTuple

from lfpc.evaluation.differences import adjust, difference_row, field, score
from lfpc.evaluation.incomplete import shortfall
from lfpc.evaluation.probes import OWN, REPEAT, REPLAYED, paired
from lfpc.evaluation.use import crop_use
from lfpc.metrics.resampling import bootstrap_interval, mean_interval
from lfpc.metrics.summary import Records, Timing, truncated_questions
from lfpc.published.benchmarks import score_task
from lfpc.records import EpisodeRecord


class Condition(NamedTuple):
    """The key of an evaluation within a study."""

    arm: str
    """Arm of the study; empty: no study."""
    budget: str
    """Name of the first-view budget, after the task if there are several."""
    probe: str
    seed: int


AllRecords = Mapping[Condition, Records]
ArmBudget = tuple[str, str]
"""(arm, budget)."""
Timings = Mapping[ArmBudget, Sequence[Timing]]


def pooled(records: AllRecords, arm: str, budget: str, probe: str = OWN) -> list[EpisodeRecord]:
    """Records of one arm, budget and probe over all seeds, with their seed."""
    return [
        replace(record, seed=condition.seed)
        for condition, some in records.items()
        if condition[:3] == (arm, budget, probe)
        for record in some
    ]


def arm_budgets(records: AllRecords) -> list[ArmBudget]:
    """(arm, budget) of every ordinary evaluation, in order."""
    found = ((one.arm, one.budget) for one in records if one.probe == OWN)
    return list(dict.fromkeys(found))


def all_results(
    records: AllRecords,
    *,
    timings: Timings | None = None,
    tasks: Mapping[ArmBudget, str] | None = None,
) -> dict[str, Any]:
    """Results of every condition.

        {"questions": n, "seeds": [...], "conditions": {arm: {budget: condition_results}}}

    Args:
        records: records by condition.
        timings: seconds per question, measured apart from the records.
        tasks: benchmark of each cell, whose rule scores the answers.
    """
    conditions: dict[str, dict[str, Any]] = {}
    for arm, budget in arm_budgets(records):
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
    """Results of one policy at one budget, with the accuracy lost under each probe.

    Args:
        by_probe: records by probe, including "own".
        timings: seconds per question, measured apart from the records.
        task: the benchmark whose rule scores the answers; empty: the mean over questions.
    Returns:
        "summary" of the probe "own"; "iou_ci"; "accuracy_by_seed"; "seconds_alone" and
        "cpu_seconds_alone": medians of the questions that were asked once more, one at a time
        (None: not timed), where "seconds" of the summary are as played; "probes": for each probe
        "accuracy",
        "incomplete" (see `shortfall`), "truncated", and the accuracy lost as a difference row over
        "all" questions and over those with a crop ("tool"); None without pairs, p_holm adjusted
        over the probes except "repeat"; "use": see `lfpc.evaluation.use.crop_use`.
    """
    own = by_probe[OWN]
    used = [record for record in own if record.tool]
    probes = {
        probe: {
            "accuracy": fmean(record.score for record in shown) if shown else None,
            "incomplete": shortfall(shown),
            "truncated": truncated_questions(shown),
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
    summary = score_task(task, own) | {
        "timings": [asdict(timing) for timing in timings],
        "incomplete": shortfall(own),
    }
    alone = next((timing for timing in timings if timing.concurrency == 1), None)
    return {
        "summary": summary,
        "iou_ci": _mean_interval(own, "iou"),
        "accuracy_by_seed": _by_seed(own, lambda some: fmean(record.score for record in some)),
        "seconds_alone": alone and alone.median,
        "cpu_seconds_alone": alone and alone.cpu,
        "probes": probes,
        "use": crop_use(by_probe),
    }


def lost(condition: Mapping[str, Any], probe: str) -> Mapping[str, Any]:
    """The difference row of accuracy lost under `probe`, over all questions; empty without that
    probe.
    """
    return condition["probes"].get(probe, {}).get("all") or {}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A difference left - right, planned before the evaluation."""

    metric: str
    """"accuracy", "noise_drop", or a field of records ("iou", "crop_area"), paired if both sides
    have it."""
    left: ArmBudget
    right: ArmBudget


PLANNED = (
    Comparison("noise_drop", ("stage1", "small"), ("baseline", "small")),
    Comparison("noise_drop", ("stage1", "middle"), ("baseline", "middle")),
    Comparison("accuracy", ("stage1", "small"), ("baseline", "small")),
    *(
        Comparison("accuracy", ("stage2", budget), ("baseline-matched", budget))
        for budget in ("small", "middle", "full")
    ),
    Comparison("accuracy", ("stage2", "small"), ("baseline-matched", "full")),
    Comparison("accuracy", ("stage2", "small"), ("stage1-continued", "small")),
    Comparison("iou", ("stage2", "small"), ("stage1-continued", "small")),
    Comparison("crop_area", ("stage2", "small"), ("stage1-continued", "small")),
)
"""The paper's claims, each against the arm with the same steps and samples: the information gap
raises crop dependence and accuracy, grounding gives better boxes, the small budget suffices."""

COMPARED = ("accuracy", "noise_drop", "iou")
"""Metrics of the ablation comparisons."""
RATIOS = (("stage2", "small"), ("baseline-matched", "full"))
"""Cells of the cost ratios: the second over the first."""


def comparisons(
    records: AllRecords, *, planned: Sequence[Comparison] = PLANNED
) -> list[dict[str, Any]]:
    """A row for each planned comparison with both sides evaluated: name, metric, left, right
    (arm with budget), and the difference row's delta, low, high, p, p_holm (adjusted for the number
    of rows), n, clusters, and mcnemar_p if each question has one verdict.
    """
    rows = [row for plan in planned if (row := _compared(records, plan))]
    adjust(rows)
    return rows


def ablation_comparisons(records: AllRecords) -> list[Comparison]:
    """Comparisons of each ablation with its parent: the arm whose name begins the ablation's."""
    found = arm_budgets(records)
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
    """The accuracy lost, from a record that `with_drop` made."""
    return float(record.correct or 0)


def with_drop(own: Records, probe: Records) -> list[EpisodeRecord]:
    """Records of `own` that are paired in `probe`, with the accuracy lost there as `correct`."""
    return [replace(a, correct=a.score - b.score) for a, b in paired(own, probe)]


def _with_drop(records: AllRecords, cell: ArmBudget) -> list[EpisodeRecord]:
    return with_drop(pooled(records, *cell), pooled(records, *cell, "noise"))


def ratios(conditions: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Ratios of visual tokens and seconds, matched baseline at full budget over Stage II at the
    small one; None: not evaluated. Seconds also None: the questions were not asked by turns, or
    the 95 % interval of the ratio of seconds, or of CPU seconds, holds 1, as on a busy machine.
    """

    def at(cell: ArmBudget) -> Mapping[str, Any] | None:
        return conditions.get(cell[0], {}).get(cell[1])

    def ratio(large: Any, small: Any) -> float | None:
        return large / small if large is not None and small is not None and small > 0 else None

    def tokens(cell: ArmBudget) -> Any:
        found = at(cell)
        return found and found["summary"]["visual_tokens"]

    def each(cell: ArmBudget) -> Sequence[tuple[float, float]]:
        found = at(cell)
        timings = found["summary"]["timings"] if found else ()
        return next((one["each"] for one in timings if one["concurrency"] == 1), ())

    ours, theirs = RATIOS
    return {
        "visual_tokens": ratio(tokens(theirs), tokens(ours)),
        "seconds_alone": _paired_ratio(each(theirs), each(ours)),
    }


def _paired_ratio(
    large: Sequence[tuple[float, float]], small: Sequence[tuple[float, float]]
) -> float | None:
    """Geometric mean over questions of the ratio of seconds; None: see `ratios`."""
    if not large or len(large) != len(small):
        return None
    means: list[float] = []
    for kind in (0, 1):
        pairs = [(a[kind], b[kind]) for a, b in zip(large, small, strict=True)]
        if min(map(min, pairs)) <= 0:
            return None
        logs = [log(a / b) for a, b in pairs]
        low, high = bootstrap_interval(logs)
        if not (low > 0 or high < 0):
            return None
        means.append(fmean(logs))
    return exp(means[0]) if means[0] * means[1] > 0 else None


def _mean_interval(records: Records, key: str) -> list[float | None]:
    having = [record for record in records if getattr(record, key) is not None]
    interval = mean_interval(
        [getattr(record, key) for record in having],
        [record.cluster for record in having],
        [record.seed for record in having],
    )
    return [value if isfinite(value) else None for value in interval]


def _by_seed(records: Records, value: Callable[[Records], float]) -> dict[str, float]:
    seeds = sorted({record.seed or 0 for record in records})
    return {
        str(seed): value([record for record in records if (record.seed or 0) == seed])
        for seed in seeds
    }
