"""Figures of a task's evaluation rows: one flat table, which results.json and pages take as it is.

Every row counts: what failed, was never answered or could not be decided is wrong and stays in the
denominator, and its share is a figure of its own. Rows of one question (rotations, repeats) or
picture are one cluster.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from lfpc.errors import ConfigError
from lfpc.metrics.episodes import Row, cluster_of, score
from lfpc.metrics.statistics import clustered_se, clustered_wilson

DECIDERS = ("rule", "judge", "unparsed", "undecided", "error")
"""Who decided: a rule, the judge, nobody as there was no readable answer, nobody as the judge
failed, nobody as the question failed."""


def decided_by(row: Row) -> str:
    """Which of `DECIDERS` decided a row."""
    method = "error" if "error" in row else row.get("method", "unparsed")
    return method if method in DECIDERS else "rule"


def mean_figures(
    name: str, values: Sequence[float], clusters: Sequence[Hashable]
) -> dict[str, Any]:
    """A mean under `name` and its clustered standard error under `name_stderr`; None where there is
    too little for them.
    """
    error = clustered_se(values, clusters) if values else None
    return {
        name: fmean(values) if values else None,
        f"{name}_stderr": error if error is not None and isfinite(error) else None,
    }


def score_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures every task has.

    Returns:
        "acc" with "acc_stderr" (clustered), "acc_low" and "acc_high" (95 %, Wilson); "acc/CATEGORY"
        likewise; "decided/rule" and so on, shares that add up to 1; "chance", the accuracy of
        guessing, where every question has options; "n" rows and "clusters", their independent
        groups (see `cluster_of`).
    """
    right = [score(row) for row in rows]
    clusters = [cluster_of(row) for row in rows]
    low, high = clustered_wilson(right, clusters)
    figures = mean_figures("acc", right, clusters) | {"acc_low": low, "acc_high": high}
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[str(row.get("category", ""))].append(row)
    for category, some in sorted(groups.items()) if set(groups) != {""} else ():
        figures |= mean_figures(
            f"acc/{category}", [score(row) for row in some], [cluster_of(row) for row in some]
        )
    if rows and all(row.get("options") for row in rows):
        figures["chance"] = fmean(1 / len(row["options"]) for row in rows)
    deciders = [decided_by(row) for row in rows]
    figures |= {
        f"decided/{name}": deciders.count(name) / len(rows) if rows else None for name in DECIDERS
    }
    return figures | {"n": len(rows), "clusters": len(set(clusters))}


def average_at_k(runs: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Avg@k: the mean accuracy of k runs of the same questions, with an error that knows that they
    are the same.

        avg@k = mean over questions of (right runs) / k

    Args:
        runs: the rows of each run.
    Returns:
        "avg@k" with "avg@k_stderr" (clustered), "avg@k_low" and "avg@k_high" (95 %), "any@k" and
        "all@k" (right in at least one, in every run), "k", "clusters".
    Raises:
        ConfigError: the runs do not hold the same samples, once each.
    """
    names = [sorted(str(row["sample"]) for row in rows) for rows in runs]
    for number, some in enumerate(names):
        if some != names[0] or len(set(some)) != len(some):
            raise ConfigError(
                f"run {number + 1} does not hold the samples of run 1, once each; Avg@k "
                f"needs whole runs of the same questions"
            )
    right: defaultdict[str, list[bool]] = defaultdict(list)
    clusters = {str(row["sample"]): cluster_of(row) for rows in runs for row in rows}
    for row in (row for rows in runs for row in rows):
        right[str(row["sample"])].append(score(row) == 1)
    shares = [fmean(values) for values in right.values()]
    groups = [clusters[name] for name in right]
    low, high = clustered_wilson(shares, groups)
    figures = mean_figures("avg@k", shares, groups) | {"avg@k_low": low, "avg@k_high": high}
    return figures | {
        "any@k": fmean(map(any, right.values())) if right else None,
        "all@k": fmean(map(all, right.values())) if right else None,
        "k": len(runs),
        "clusters": len(set(clusters.values())),
    }
