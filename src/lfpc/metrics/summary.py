"""Summaries of records: accuracy, tool use, localisation, cost.

Evaluations, benchmarks, probes and the demo share them. Every record counts: a failed, unanswered
or undecided question is wrong and stays in the denominator. Shares are fractions, not percentages.
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
"""The result of `summarise`."""
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
"""Fields of records with a mean in the summary."""
COSTS = (
    "visual_tokens",
    "global_tokens",
    "crop_tokens",
    "text_tokens",
    "n_turns",
    "calls",
    "seconds",
)
"""Cost fields of records, with mean, median and 95 % quantile in the summary."""
DECIDERS = ("rule", "judge", "unparsed", "undecided", "failed")
"""Deciders of a verdict: a rule or the judge; or none: unreadable answer, failed judge, failed
question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of questions that were played `concurrency` at a time."""

    concurrency: int
    questions: int
    """Number of timed questions."""
    median: float
    """Median seconds from first view to answer; questions of a batch end together."""
    p95: float
    """95 % quantile, in seconds."""
    per_second: float
    """Throughput, in questions per second."""
    cpu: float | None = None
    """Median CPU seconds of this process, over all its threads; None: not measured."""
    each: tuple[tuple[float, float], ...] = ()
    """(seconds, CPU seconds) of each question, in the order asked; empty: not kept."""


def summarise(records: Records, timings: Sequence[Timing] = ()) -> Summary:
    """The summary of `records`.

    Returns:
        n, clusters (independent groups), failed;
        accuracy, accuracy_ci (95 %, Wilson, clustered), accuracy_stderr (clustered);
        chance: accuracy of guessing if every question has options, else None;
        decided: share by each of `DECIDERS`, adding up to 1;
        categories: n, accuracy, accuracy_ci, accuracy_stderr by category;
        tool_rate; iou_all: IoU of the last crop with a missing crop counted as 0; crop_area:
        median;
        answered_before_crop: share of the questions whose text shows it; answered_before_crop_n:
            their number;
        truncated: number of questions with a reply that the token limit ended;
        malformed: count by reason code; the mean of each of `MEANS` over the records with a value;
        cost: mean, median and p95 of each of `COSTS`; concurrency (None: in batches); per_second;
        timings, as given;
        figures: further numbers of a benchmark (see `lfpc.published.index`), else empty.
            Missing numbers are None.
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
        "answered_before_crop_n": len(before_crop),
        "truncated": truncated_questions(records),
        "malformed": dict(Counter(reason for record in records for reason in record.malformed)),
        **{key: fmean(values) if (values := known(records, key)) else None for key in MEANS},
        "cost": {key: _spread(known(records, key)) for key in COSTS},
        "concurrency": max(known(records, "concurrency"), default=None),
        "per_second": throughput(records),
        "timings": [asdict(timing) for timing in timings],
        "figures": {},
    }


def truncated_questions(records: Records) -> int:
    """Number of questions with a reply that the token limit ended."""
    return sum(bool(record.truncated) for record in records)


def accuracy_of(records: Records) -> Summary:
    """n, accuracy, accuracy_ci, accuracy_stderr of `records`."""
    scores = [record.score for record in records]
    clusters = [record.cluster for record in records]
    seeds = [record.seed for record in records]
    return {
        "n": len(records),
        **mean_with_error("accuracy", scores, clusters, seeds),
        "accuracy_ci": list(clustered_wilson(scores, clusters, seeds)),
    }


def mean_with_error(
    name: str,
    values: Sequence[float],
    clusters: Sequence[Hashable],
    seeds: Sequence[Hashable] | None = None,
) -> dict[str, float | None]:
    """A mean under `name` and its clustered standard error under `name_stderr`; None with too few
    values.
    """
    error = clustered_se(values, clusters, seeds) if values else None
    return {
        name: fmean(values) if values else None,
        f"{name}_stderr": error if error is not None and isfinite(error) else None,
    }


def known(records: Records, key: str) -> list[float]:
    """The values of the field `key` that are not None."""
    values = (getattr(record, key) for record in records)
    return [float(value) for value in values if value is not None]


def decided_by(record: EpisodeRecord) -> str:
    """The decider of a record, one of `DECIDERS`."""
    if record.failed:
        return "failed"
    method = record.method or "unparsed"
    return method if method in DECIDERS else "rule"


def throughput(records: Records) -> float | None:
    """Questions per second during the run; None without seconds.

        concurrency / mean seconds

    The seconds of a batch are divided among its questions, so there the concurrency is 1. Source:
    Little 1961.
    """
    timed = [record for record in records if record.seconds]
    if not timed:
        return None
    at_once = fmean(record.concurrency or 1 for record in timed)
    return at_once / fmean(record.seconds or 0.0 for record in timed)


def average_at_k(runs: Sequence[Records]) -> dict[str, Any]:
    """Avg@k: the mean accuracy of k runs of the same questions, with a standard error clustered by
    question.

        avg@k = mean over questions of (right runs) / k

    Args:
        runs: the records of each run.
    Returns:
        "avg@k" with "avg@k_stderr" (clustered), "avg@k_low" and "avg@k_high" (95 %), "any@k" and
        "all@k" (right in at least one, in every run), "k", "clusters".
    Raises:
        ConfigError: the runs differ in their samples, or repeat one.
    """
    names = [sorted(record.sample.id for record in records) for records in runs]
    for number, some in enumerate(names):
        if some != names[0] or len(set(some)) != len(some):
            raise ConfigError(
                f"run {number + 1} does not have the samples of run 1, once each; Avg@k needs "
                f"complete runs of the same questions"
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
    """A summary's accuracy as one flat table for other tools: "accuracy", "accuracy_low",
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
    return (
        flat | summary["figures"] | {name: summary[name] for name in ("n", "clusters", "truncated")}
    )


def _categories(records: Records) -> dict[str, Summary]:
    """Accuracy by category; empty without categories."""
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
