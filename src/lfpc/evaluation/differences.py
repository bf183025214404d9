"""Paired differences of records as table rows: means, interval, tests, power."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from lfpc.evaluation.probes import paired
from lfpc.metrics.power import power_line
from lfpc.metrics.statistics import holm, mcnemar, paired_difference
from lfpc.metrics.summary import Records
from lfpc.records import EpisodeRecord

Measure = Callable[[EpisodeRecord], float | None]
"""Record -> the value to compare; None: the record has none and is left out."""


def score(record: EpisodeRecord) -> float:
    """The score of a record, in [0, 1]."""
    return record.score


def field(name: str) -> Measure:
    """The `Measure` that reads the field `name` of a record."""

    def value(record: EpisodeRecord) -> float | None:
        found = getattr(record, name)
        return None if found is None else float(found)

    return value


def difference_row(a: Records, b: Records, measure: Measure = score) -> dict[str, Any] | None:
    """measure(a) - measure(b) of records of the same question and seed; None without pairs.

    Returns:
        "left" and "right", the means over the pairs; the `Difference`; "power", a sentence; and
        "mcnemar_p" where each cluster has one pair of verdicts.
    """
    pairs = [(measure(x), measure(y), x.cluster, x.seed) for x, y in paired(a, b)]
    known = [(x, y, *group) for x, y, *group in pairs if x is not None and y is not None]
    if not known:
        return None
    left = [x for x, _, _, _ in known]
    right = [y for _, y, _, _ in known]
    difference = paired_difference(
        left,
        right,
        [cluster for _, _, cluster, _ in known],
        seeds=[seed for _, _, _, seed in known],
    )
    row: dict[str, Any] = {
        "left": fmean(left),
        "right": fmean(right),
        **difference.as_row(),
        "power": power_line(difference),
    }
    if (
        measure is score
        and difference.n == difference.clusters
        and {0.0, 1.0}.issuperset([*left, *right])
    ):
        row["mcnemar_p"] = mcnemar([bool(x) for x in left], [bool(x) for x in right])
    return row


def adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Give each row "p_holm", its p adjusted for the number of rows."""
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
