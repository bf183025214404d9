"""What many records add up to: accuracy, use of the tool, localisation, and what it cost.

One vocabulary for evaluations, benchmarks, probes and the demo. Every record counts: a question
that failed, was never answered or could not be decided is wrong and stays in the denominator.
Shares are fractions, never percentages.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from statistics import fmean, median
from typing import Any

import numpy as np

from lfpc.errors import ConfigError
from lfpc.metrics.statistics import clustered_se, clustered_wilson
from lfpc.records import EpisodeRecord

Records = Sequence[EpisodeRecord]
Summary = dict[str, Any]
"""What `summarise` returns."""
MEANS = (
    "visual_tokens",
    "global_tokens",
    "crop_tokens",
    "n_turns",
    "calls",
    "crops",
    "iou",
    "iou_first",
    "iou_best",
    "coverage",
    "seconds",
)
"""Fields of records whose mean a summary holds."""
COSTS = (
    "visual_tokens",
    "global_tokens",
    "crop_tokens",
    "text_tokens",
    "n_turns",
    "calls",
    "seconds",
)
"""What a question costs; a summary holds mean, median and 95 % quantile of each."""
DECIDERS = ("rule", "judge", "unparsed", "undecided", "failed")
"""Who decided: a rule, the judge; or nobody: no readable answer, the judge failed, the question
failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long questions took when `concurrency` of them were played together."""

    concurrency: int
    questions: int
    """How many were counted."""
    median: float
    """Seconds from first view to answer; questions that are played together end together."""
    p95: float
    """95 % of the questions took no longer, in seconds."""
    per_second: float
    """Questions per second: the throughput."""


def summarise(records: Records, timings: Sequence[Timing] = ()) -> Summary:
    """The numbers of `records`.

    Returns:
        n, clusters (independent groups), failed;
        accuracy, accuracy_ci (95 %, Wilson, clustered), accuracy_stderr (clustered);
        chance: accuracy of guessing, where every question has options, else None;
        decided: share by each of `DECIDERS`, adding up to 1;
        categories: n, accuracy, accuracy_ci, accuracy_stderr by category;
        tool_rate; iou_all: IoU of the last crop with a missing crop counted as 0; crop_area:
        median;
        answered_before_crop: share of the questions where it can be told; told: their number;
        malformed: how often each reason code occurred;
        the mean of each of `MEANS` over the records that have it;
        cost: mean, median and p95 of each of `COSTS`; concurrency (None: in batches); per_second;
        timings, as given;
        figures: further numbers of a benchmark (see `lfpc.published`), else empty.
        A number that does not exist is None.
    """
    before_crop = known(records, "answered_before_crop")
    areas = known(records, "crop_area")
    deciders = [decided_by(record) for record in records]
    return {
        **accuracy_of(records),
        "clusters": len({record.cluster for record in records}),
        "failed": sum(record.failed for record in records),
        "chance": _chance(records),
        "decided": {name: _share(deciders.count(name), len(records)) for name in DECIDERS},
        "categories": _categories(records),
        "tool_rate": fmean(bool(record.tool) for record in records) if records else None,
        "iou_all": _iou_all(records),
        "crop_area": median(areas) if areas else None,
        "answered_before_crop": fmean(before_crop) if before_crop else None,
        "told": len(before_crop),
        "malformed": dict(Counter(reason for record in records for reason in record.malformed)),
        **{key: fmean(values) if (values := known(records, key)) else None for key in MEANS},
        "cost": {key: _spread(known(records, key)) for key in COSTS},
        "concurrency": max(known(records, "concurrency"), default=None),
        "per_second": throughput(records),
        "timings": [asdict(timing) for timing in timings],
        "figures": {},
    }


def accuracy_of(records: Records) -> Summary:
    """n, accuracy, accuracy_ci, accuracy_stderr of `records`."""
    scores = [record.score for record in records]
    clusters = [record.cluster for record in records]
    return {
        "n": len(records),
        **mean_with_error("accuracy", scores, clusters),
        "accuracy_ci": list(clustered_wilson(scores, clusters)),
    }


def mean_with_error(
    name: str, values: Sequence[float], clusters: Sequence[Hashable]
) -> dict[str, float | None]:
    """A mean under `name` and its clustered standard error under `name_stderr`; None where there
    are too few values.
    """
    error = clustered_se(values, clusters) if values else None
    return {
        name: fmean(values) if values else None,
        f"{name}_stderr": error if error is not None and isfinite(error) else None,
    }


def known(records: Records, key: str) -> list[float]:
    """The values of the field `key` in those records that have one."""
    values = (getattr(record, key) for record in records)
    return [float(value) for value in values if value is not None]


def decided_by(record: EpisodeRecord) -> str:
    """Which of `DECIDERS` decided a record."""
    if record.failed:
        return "failed"
    method = record.method or "unparsed"
    return method if method in DECIDERS else "rule"


def throughput(records: Records) -> float | None:
    """Questions per second while the records were made; None where none has seconds.

        concurrency / mean seconds

    The seconds of a batch are shared out to its questions, so there the concurrency is 1.
    Source: Little 1961.
    """
    timed = [record for record in records if record.seconds]
    if not timed:
        return None
    at_once = fmean(record.concurrency or 1 for record in timed)
    return at_once / fmean(record.seconds or 0.0 for record in timed)


def average_at_k(runs: Sequence[Records]) -> dict[str, Any]:
    """Avg@k: the mean accuracy of k runs of the same questions, with an error that knows that they
    are the same.

        avg@k = mean over questions of (right runs) / k

    Args:
        runs: the records of each run.
    Returns:
        "avg@k" with "avg@k_stderr" (clustered), "avg@k_low" and "avg@k_high" (95 %), "any@k" and
        "all@k" (right in at least one, in every run), "k", "clusters".
    Raises:
        ConfigError: the runs do not hold the same samples, once each.
    """
    names = [sorted(record.sample.id for record in records) for records in runs]
    for number, some in enumerate(names):
        if some != names[0] or len(set(some)) != len(some):
            raise ConfigError(
                f"run {number + 1} does not hold the samples of run 1, once each; Avg@k needs "
                f"whole runs of the same questions"
            )
    right: defaultdict[str, list[bool]] = defaultdict(list)
    clusters: dict[str, str] = {}
    for record in (record for records in runs for record in records):
        right[record.sample.id].append(record.score == 1)
        clusters[record.sample.id] = record.cluster
    shares = [fmean(values) for values in right.values()]
    groups = [clusters[name] for name in right]
    low, high = clustered_wilson(shares, groups)
    return {
        **mean_with_error("avg@k", shares, groups),
        "avg@k_low": low,
        "avg@k_high": high,
        "any@k": fmean(map(any, right.values())) if right else None,
        "all@k": fmean(map(all, right.values())) if right else None,
        "k": len(runs),
        "clusters": len(set(clusters.values())),
    }


def flat_figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary's accuracy as one flat table, which other tools read: "accuracy", "accuracy_low",
    "accuracy/CATEGORY", "decided/rule", ..., and the benchmark's own figures.
    """
    low, high = summary["accuracy_ci"]
    flat: dict[str, Any] = {
        "accuracy": summary["accuracy"],
        "accuracy_stderr": summary["accuracy_stderr"],
        "accuracy_low": low,
        "accuracy_high": high,
    }
    for category, found in summary["categories"].items():
        flat[f"accuracy/{category}"] = found["accuracy"]
        flat[f"accuracy/{category}_stderr"] = found["accuracy_stderr"]
    if summary["chance"] is not None:
        flat["chance"] = summary["chance"]
    flat |= {f"decided/{name}": share for name, share in summary["decided"].items()}
    return flat | summary["figures"] | {"n": summary["n"], "clusters": summary["clusters"]}


def _categories(records: Records) -> dict[str, Summary]:
    """Accuracy by category; empty where no record has one."""
    groups: defaultdict[str, list[EpisodeRecord]] = defaultdict(list)
    for record in records:
        groups[record.sample.category].append(record)
    if set(groups) <= {""}:
        return {}
    return {name: accuracy_of(group) for name, group in sorted(groups.items())}


def _chance(records: Records) -> float | None:
    if not records or not all(record.sample.options for record in records):
        return None
    return fmean(1 / len(record.sample.options) for record in records)


def _share(count: int, total: int) -> float | None:
    return count / total if total else None


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    middle, high = np.quantile(values, (0.5, 0.95))
    return {"mean": fmean(values), "median": float(middle), "p95": float(high)}


def _iou_all(records: Records) -> float | None:
    boxed = [record for record in records if record.sample.boxes]
    return fmean(record.iou or 0.0 for record in boxed) if boxed else None
