"""The demo's results: rows of every arm, budget, probe and seed in, the tables of README, page and
results.json out.

Accuracy pools all seeds; intervals take the picture as the unit. Everything is a fraction, never a
percentage.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any

from lfpc.evaluate.probes import paired_rows, probe_differences
from lfpc.metrics.episodes import Row, cluster_of, known, score, summarise
from lfpc.metrics.statistics import bootstrap_interval, holm, mcnemar, paired_difference

Setting = tuple[str, str, str, int]
"""(arm, budget name, probe, seed)."""
AllRows = Mapping[Setting, Sequence[Row]]
Seconds = Mapping[tuple[str, str], float]
"""Seconds per question of (arm, budget name); a setting without an entry takes the mean of its
rows' "seconds"."""


def pooled(rows: AllRows, arm: str, budget: str, probe: str = "own") -> list[Row]:
    """Rows of one setting over all its seeds; each row names its seed."""
    return [
        {**row, "seed": seed}
        for (its_arm, its_budget, its_probe, seed), some in rows.items()
        if (its_arm, its_budget, its_probe) == (arm, budget, probe)
        for row in some
    ]


def demo_results(rows: AllRows, seconds: Seconds | None = None) -> dict[str, Any]:
    """What `results.json` holds, but for the comparisons.

        {"questions": n, "seeds": [...], "arms": {arm: {budget: {"accuracy", "accuracy_ci",
        "noise_drop", ...}}}}

    `questions` counts the distinct ones. A value that does not exist (no probe run, no crop made)
    is None.

    Args:
        rows: evaluation rows by (arm, budget name, probe, seed); the probe "own" is the ordinary
            evaluation.
        seconds: measured seconds per question by (arm, budget name).
    """
    settings = list(
        dict.fromkeys((arm, budget) for arm, budget, probe, _ in rows if probe == "own")
    )
    arms: dict[str, dict[str, Any]] = {}
    for arm, budget in settings:
        arms.setdefault(arm, {})[budget] = _setting_results(
            rows, arm, budget, (seconds or {}).get((arm, budget))
        )
    return {
        "questions": len({row["sample"] for some in rows.values() for row in some}),
        "seeds": sorted({seed for *_, seed in rows}),
        "arms": arms,
    }


def _setting_results(rows: AllRows, arm: str, budget: str, seconds: float | None) -> dict[str, Any]:
    own = pooled(rows, arm, budget)
    found = summarise(own)
    result: dict[str, Any] = {"accuracy": found["accuracy"], "accuracy_ci": found["accuracy_ci"]}
    repeat = pooled(rows, arm, budget, "repeat")
    probes: dict[str, Any] = {}
    for probe in ("noise", "truth", "other", "none", "repeat"):
        if shown := pooled(rows, arm, budget, probe):
            probes[probe] = probe_differences(own, shown, repeat)
        drop = probes.get(probe, {}).get("all", {})
        result[f"{probe}_drop"] = drop.get("delta")
        result[f"{probe}_drop_ci"] = [drop.get("low"), drop.get("high")]
    result |= {
        "iou": found["iou"],
        "iou_ci": _mean_interval(own, "iou"),
        "crop_area": found["crop_area"],
        "visual_tokens": found["visual_tokens"],
        "seconds_per_question": found["seconds"] if seconds is None else seconds,
        **{
            key: found[key]
            for key in (
                "tool_rate",
                "iou_first",
                "iou_best",
                "iou_all",
                "coverage",
                "crops",
                "errors",
            )
        },
        "turns": found["n_turns"],
        "global_tokens": found["global_tokens"],
        "base_vs_base": probes.get("repeat", {}).get("all"),
        "probes": probes,
        "accuracy_by_seed": _by_seed(own, lambda some: fmean(map(score, some))),
        "categories": {
            name: {"n": group["n"], "accuracy": group["accuracy"]}
            for name, group in found["categories"].items()
        },
        "malformed": found["malformed"],
    }
    return result


def _mean_interval(rows: Sequence[Row], key: str) -> list[float | None]:
    having = [row for row in rows if row.get(key) is not None]
    interval = bootstrap_interval([row[key] for row in having], [cluster_of(row) for row in having])
    return [value if isfinite(value) else None for value in interval]


def _by_seed(rows: Sequence[Row], value: Callable[[Sequence[Row]], float]) -> dict[str, float]:
    seeds = sorted({row["seed"] for row in rows})
    return {str(seed): value([row for row in rows if row["seed"] == seed]) for seed in seeds}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A difference left - right that was planned before the numbers were seen."""

    metric: str
    """"accuracy", "noise_drop", or a fact of the rows ("iou", "crop_area"), paired where both sides
    have it."""
    left: tuple[str, str]
    """(arm, budget name)."""
    right: tuple[str, str]


PLANNED = (
    Comparison("noise_drop", ("stage1", "small"), ("baseline", "small")),
    Comparison("accuracy", ("stage1", "small"), ("baseline", "small")),
    Comparison("accuracy", ("stage2", "small"), ("stage1", "small")),
    Comparison("iou", ("stage2", "small"), ("stage1", "small")),
    Comparison("crop_area", ("stage2", "small"), ("stage1", "small")),
    Comparison("accuracy", ("stage2", "small"), ("baseline", "full")),
)
"""The paper's claims: Stage I makes crops matter and helps, Stage II points better and loses
nothing, the small budget suffices."""

RATIOS = (("stage2", "small"), ("baseline", "full"))
"""Whose tokens and seconds are divided: the second by the first."""


def comparisons(
    rows: AllRows, seconds: Seconds | None = None, *, planned: Sequence[Comparison] = PLANNED
) -> dict[str, Any]:
    """Paired differences between arms, and what the small budget saves.

    Returns:
        "differences": a row for each planned comparison whose two sides were evaluated: name,
        metric, left, right, delta, low, high, p, p_holm (adjusted for the number of rows), n,
        clusters, and mcnemar_p where each question has one verdict. "ratios": {"visual_tokens",
        "seconds_per_question", "noise_drop"}: how many times more (None: not evaluated).
    """
    differences = [row for plan in planned if (row := _difference(rows, plan))]
    for row, p in zip(differences, holm([row["p"] for row in differences]), strict=True):
        row["p_holm"] = p
    return {"differences": differences, "ratios": _ratios(rows, seconds or {})}


def _difference(rows: AllRows, plan: Comparison) -> dict[str, Any] | None:
    left = _measured(rows, plan.left, plan.metric)
    right = _measured(rows, plan.right, plan.metric)
    pairs = paired_rows(left, right)
    if not pairs:
        return None
    a = [row["value"] for row, _ in pairs]
    b = [row["value"] for _, row in pairs]
    difference = paired_difference(a, b, [cluster_of(row) for row, _ in pairs])
    row = {
        "name": f"{' '.join(plan.left)} - {' '.join(plan.right)}",
        "metric": plan.metric,
        "left": list(plan.left),
        "right": list(plan.right),
        **difference.as_row(),
    }
    if plan.metric == "accuracy" and difference.n == difference.clusters:
        row["mcnemar_p"] = mcnemar(a, b)
    return row


def _measured(rows: AllRows, setting: tuple[str, str], metric: str) -> list[Row]:
    """Rows (sample, seed, image, value) of a setting, for those questions that have the value."""
    own = pooled(rows, *setting)
    match metric:
        case "accuracy":
            values = [(row, score(row)) for row in own]
        case "noise_drop":
            pairs = paired_rows(own, pooled(rows, *setting, "noise"))
            values = [(row, score(row) - score(shown)) for row, shown in pairs]
        case _:
            values = [(row, float(row[metric])) for row in own if row.get(metric) is not None]
    return [
        {"sample": row["sample"], "seed": row["seed"], "image": row.get("image"), "value": value}
        for row, value in values
    ]


def _ratios(rows: AllRows, seconds: Seconds) -> dict[str, float | None]:
    def cost(setting: tuple[str, str], key: str) -> float | None:
        values = known(pooled(rows, *setting), key)
        return fmean(values) if values else None

    def drop(setting: tuple[str, str]) -> float | None:
        values = [row["value"] for row in _measured(rows, setting, "noise_drop")]
        return fmean(values) if values else None

    def ratio(large: float | None, small: float | None) -> float | None:
        return large / small if large is not None and small is not None and small > 0 else None

    ours, theirs = RATIOS
    return {
        "visual_tokens": ratio(cost(theirs, "visual_tokens"), cost(ours, "visual_tokens")),
        "seconds_per_question": ratio(
            *(seconds.get(setting, cost(setting, "seconds")) for setting in (theirs, ours))
        ),
        "noise_drop": ratio(drop(("stage1", "small")), drop(("baseline", "small"))),
    }


def budget_histogram(samples_budgets: Sequence[int | None]) -> dict[str, int]:
    """How often resolution selection chose each first-view budget, smallest first; "none": not
    chosen.
    """
    counts = Counter(samples_budgets)
    chosen = sorted(budget for budget in counts if budget is not None)
    return {
        **{str(budget): counts[budget] for budget in chosen},
        **({"none": counts[None]} if None in counts else {}),
    }
