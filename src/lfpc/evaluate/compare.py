"""What a run loses under probes, and how two runs differ: paired numbers. `terminal` shows them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lfpc.errors import RunError
from lfpc.evaluate.probes import paired_rows
from lfpc.evaluate.recorded import evaluations, probed_runs
from lfpc.metrics.episodes import Row, Timing, cluster_of, known, score, summarise, text_tokens
from lfpc.metrics.statistics import holm, mcnemar, paired_difference, power_line

Rows = Sequence[Row]
Evaluations = Mapping[str, Rows]
"""Rows by probe name; "own" is there."""
FACTS = ("tool", "calls", "visual_tokens", "iou", "coverage", "crop_area", "seconds")
"""Facts of rows that `compare_runs` sets side by side; `text_tokens` too, which it counts."""


def probe_results(found: Evaluations, timings: Sequence[Timing] = ()) -> dict[str, Any]:
    """What every probe costs.

    Args:
        found: rows by probe name.
        timings: of the own run, measured apart from its rows.

    Returns:
        "own": its summary; "told": on how many questions it can be told whether they were answered
        before the crop; "accuracy" and "failed" (questions without an episode) by probe name;
        "drops": for each probe two rows, over all questions and over those whose own run showed a
        crop, see `_difference_row`; p_holm is adjusted over the probes, without "repeat", which
        tests nothing new.
    """
    own = found["own"]
    used = [row for row in own if row.get("tool")]
    drops = [
        {"probe": probe, "questions": name, **_difference_row(some, rows, score)}
        for name, some in (("all", own), ("tool", used))
        for probe, rows in found.items()
        if probe != "own" and paired_rows(some, rows)
    ]
    for name in ("all", "tool"):
        _adjust([row for row in drops if row["questions"] == name and row["probe"] != "repeat"])
    return {
        "own": summarise(own, timings, by_category=False),
        "told": len(known(own, "answered_before_crop")),
        "accuracy": {probe: fmean(map(score, rows)) for probe, rows in found.items()},
        "failed": _failed(found),
        "drops": drops,
    }


def compare_folders(a: Path, b: Path, *, replay: bool = False) -> dict[str, dict[str, Any]]:
    """`compare_runs` of the runs that two folders hold under the same relative path, by that path
    ("." is the folders themselves).

    Raises:
        RunError: they have no such path in common, or a run cannot be read or compared.
    """
    runs_a = probed_runs(a)
    runs_b = probed_runs(b)
    if common := [name for name in runs_a if name in runs_b]:
        return {
            name: compare_runs(
                evaluations(runs_a[name], replay=replay), evaluations(runs_b[name], replay=replay)
            )
            for name in common
        }
    raise RunError(
        f"{a} holds {', '.join(runs_a)} and {b} holds {', '.join(runs_b)}; name two "
        f"folders that correspond"
    )


def compare_runs(a: Evaluations, b: Evaluations) -> dict[str, Any]:
    """How run a differs from run b on the questions that both were asked.

    Returns:
        "tests": rows of accuracy and of what each probe that both ran costs, their p_holm adjusted
        over these rows; "facts": rows of `FACTS`, described by intervals and not tested; see
        `_difference_row`. "unpaired": questions that only A, only B was asked and that are left
        out; "failed": questions without an episode.
    Raises:
        RunError: they share no question.
    """
    pairs = paired_rows(a["own"], b["own"])
    if not pairs:
        raise RunError(
            "the two runs share no question, so nothing can be paired; questions are "
            "paired by their sample ids"
        )
    tests = [{"metric": "accuracy", **_difference_row(a["own"], b["own"], score)}]
    for probe in a:
        if (
            probe != "own"
            and probe in b
            and paired_rows(left := _drops(a, probe), right := _drops(b, probe))
        ):
            tests.append(
                {
                    "metric": f"lost under {probe}",
                    **_difference_row(left, right, lambda row: row["drop"]),
                }
            )
    _adjust(tests)
    facts: list[dict[str, Any]] = []
    for name, value in {**{key: _fact(key) for key in FACTS}, "text_tokens": text_tokens}.items():
        left, right = (
            [row for row in some if value(row) is not None] for some in (a["own"], b["own"])
        )
        if paired_rows(left, right):
            facts.append({"metric": name, **_difference_row(left, right, value)})
    runs = {"A": a["own"], "B": b["own"]}
    unpaired = {name: len(rows) - len(pairs) for name, rows in runs.items()}
    return {"tests": tests, "facts": facts, "unpaired": unpaired, "failed": _failed(runs)}


def _failed(found: Evaluations) -> dict[str, int]:
    return {name: sum("error" in row for row in rows) for name, rows in found.items()}


def _fact(key: str) -> Callable[[Row], float | None]:
    return lambda row: None if row.get(key) is None else float(row[key])


def _drops(run: Evaluations, probe: str) -> list[Row]:
    return [
        {**own, "drop": score(own) - score(shown)}
        for own, shown in paired_rows(run["own"], run[probe])
    ]


def _difference_row(a: Rows, b: Rows, value: Callable[[Row], Any]) -> dict[str, Any]:
    """Means "left" and "right" over the pairs, the `Difference`, and "mcnemar_p" where each picture
    has one pair of verdicts.
    """
    pairs = paired_rows(a, b)
    left, right = ([float(value(row)) for row in side] for side in zip(*pairs, strict=True))
    difference = paired_difference(left, right, [cluster_of(row) for row, _ in pairs])
    row: dict[str, Any] = {
        "left": fmean(left),
        "right": fmean(right),
        **difference.as_row(),
        "power": power_line(difference),
    }
    if (
        value is score
        and difference.n == difference.clusters
        and {0.0, 1.0}.issuperset([*left, *right])
    ):
        row["mcnemar_p"] = mcnemar([bool(x) for x in left], [bool(x) for x in right])
    return row


def _adjust(rows: Sequence[dict[str, Any]]) -> None:
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
