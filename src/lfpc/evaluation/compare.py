"""Paired differences of two runs. `terminal` prints them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfpc.errors import RunError
from lfpc.evaluation.differences import adjust, difference_row, field
from lfpc.evaluation.places import find_places, place_records
from lfpc.evaluation.probes import OWN
from lfpc.evaluation.results import score_drop, with_drop
from lfpc.metrics.summary import Records

FIELDS = (
    "tool",
    "calls",
    "visual_tokens",
    "iou",
    "coverage",
    "crop_area",
    "seconds",
    "text_tokens",
)
"""Fields of records that `compare_runs` compares without a test."""


def compare_folders(a: Path, b: Path, *, replay: bool = False) -> dict[str, dict[str, Any]]:
    """`compare_runs` of the places with the same relative path in two folders, by that path ("."
    for the folders themselves).

    Raises:
        RunError: no common path, or a run that cannot be read or compared.
    """
    places_a = find_places(a)
    places_b = find_places(b)
    common = [name for name in places_a if name in places_b]
    if not common:
        raise RunError(
            f"{a} holds {', '.join(places_a)} and {b} holds {', '.join(places_b)}; name "
            f"two folders "
            f"that correspond"
        )
    return {
        name: compare_runs(
            place_records(places_a[name], replay=replay),
            place_records(places_b[name], replay=replay),
        )
        for name in common
    }


def compare_runs(a: Mapping[str, Records], b: Mapping[str, Records]) -> dict[str, Any]:
    """Paired differences of run a and run b on their common questions.

    Args:
        a, b: records by probe; "own" is there.
    Returns:
        "tests": difference rows of accuracy and of the accuracy lost under each common probe, with
        p_holm adjusted over these rows. "fields": difference rows of `FIELDS`, with intervals and
        without a test; see `difference_row`. "unpaired": number of questions that only A or only B
        has, which are left out. "failed": questions without an episode, left out too.
    Raises:
        RunError: no common question.
    """
    accuracy = difference_row(a[OWN], b[OWN])
    if accuracy is None:
        raise RunError(
            "the two runs have no common question that both answered; questions are paired by "
            "their sample ids"
        )
    tests = [{"metric": "accuracy", **accuracy}]
    for probe in a:
        if probe != OWN and probe in b:
            left = with_drop(a[OWN], a[probe])
            right = with_drop(b[OWN], b[probe])
            if row := difference_row(left, right, score_drop):
                tests.append({"metric": f"lost under {probe}", **row})
    adjust(tests)
    described = ((name, _described(a[OWN], b[OWN], name)) for name in FIELDS)
    runs = {"A": a[OWN], "B": b[OWN]}
    common = set.intersection(*({record.sample.id for record in some} for some in runs.values()))
    return {
        "tests": tests,
        "fields": [{"metric": name, **row} for name, row in described if row],
        "unpaired": {
            name: len({record.sample.id for record in records} - common)
            for name, records in runs.items()
        },
        "failed": {
            name: sum(record.failed for record in records) for name, records in runs.items()
        },
    }


def _described(a: Records, b: Records, name: str) -> dict[str, Any] | None:
    """The difference row of a field. Seconds of questions that a batch answers together are the
    batch's, divided: they have no interval over questions.
    """
    row = difference_row(a, b, field(name))
    if row and name == "seconds" and any(one.concurrency is None for one in (*a, *b)):
        row |= {"low": None, "high": None, "p": None, "smallest": None, "power": ""}
    return row
