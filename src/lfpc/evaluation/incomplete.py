"""Questions without a record, an episode or a verdict, and why: counted in results, named wherever
figures are shown, and the reason of an exit code of 1.
"""

from collections.abc import Mapping
from typing import Any

from lfpc.errors import Incomplete
from lfpc.metrics.summary import Records

Shortfall = Mapping[str, Any]
"""The result of `shortfall`."""


def shortfall(records: Records) -> dict[str, Any] | None:
    """What `records` lack; None: nothing.

    Returns:
        "n", the number of questions; "failed", those without an episode; "undecided", those that
        the judge did not decide; "missing", those that were not asked; "why", the reason of the
        first failed or undecided one.
    """
    failed = [record.error for record in records if record.failed]
    undecided = [record.undecided for record in records if record.undecided and not record.failed]
    found = {
        "n": len(records),
        "failed": len(failed),
        "undecided": len(undecided),
        "missing": 0,
        "why": next(iter([*failed, *undecided]), ""),
    }
    return found if failed or undecided else None


def with_missing(found: Shortfall | None, asked: int, wanted: int) -> dict[str, Any] | None:
    """`found` of `asked` questions, and what is missing of `wanted`."""
    missing = max(0, wanted - asked)
    counts = found or {"failed": 0, "undecided": 0, "why": ""}
    if found is None and not missing:
        return None
    whole = {**counts, "n": asked + missing, "missing": missing}
    return whole if whole["failed"] or whole["undecided"] or missing else None


def share(found: Shortfall | None) -> str:
    """The questions with a verdict, " (14 of 16)", to stand behind a figure; empty: all."""
    if not found:
        return ""
    without = found["failed"] + found["undecided"] + found["missing"]
    return f" ({found['n'] - without} of {found['n']})"


def shortfall_lines(found: Mapping[str, Shortfall | None]) -> list[str]:
    """A line per name of what is incomplete."""
    return [f"{name}: {_sentence(one)}" for name, one in found.items() if one]


def check_complete(where: object, found: Mapping[str, Shortfall | None]) -> None:
    """End a command whose results are written.

    Raises:
        Incomplete: some of `found` is incomplete.
    """
    short = {name: one for name, one in found.items() if one}
    if not short:
        return
    name, first = next(iter(short.items()))
    others = f", and {len(short) - 1} more evaluations are incomplete" if len(short) > 1 else ""
    raise Incomplete(f"{where}: {name}: {_sentence(first)}{others}; the results are written")


def _sentence(one: Shortfall) -> str:
    wrong = " and ".join(
        f"{one[what]} of {one['n']} {words}"
        for what, words in (("failed", "questions failed"), ("undecided", "answers are undecided"))
        if one[what]
    )
    parts: list[str] = []
    if wrong:
        parts.append(f"{wrong} and count as wrong, the first with: {one['why']}")
    if one["missing"]:
        parts.append(f"{one['missing']} of {one['n']} questions were not asked yet")
    return f"{'; '.join(parts)}; run the same command again to ask them"
