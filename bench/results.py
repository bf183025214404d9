"""Results on disk and on the terminal."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lfpc.storage.files import write_json

Result = dict[str, Any]
UNSHOWN = ("per_rollout", "tool_rate")
"""Proof that the sides did the same work: checked before, and in the file."""


def merge(file: Path, name: str, result: Result) -> None:
    """Put one benchmark's result into `file`; the others' stay."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    write_json(file, {**known, name: _short(result)})


def table(results: dict[str, Result]) -> str:
    """One line per figure that both sides have, with the limit where it is known and the share of
    it that ours reaches; parts of a benchmark are indented.
    """
    lines = [f"{'':46}{'ours':>10}{'theirs':>10}{'ratio':>8}{'at best':>10}{'share':>7}"]
    for name, result in results.items():
        for label, part in _lines(name, result, ""):
            ratio = part["ratio"] if "ratio" in part else part["theirs"] / part["ours"]
            reached = share(part)
            limit = "" if reached is None else f"{part['at_best']:10.4g}{100 * reached:5.0f} %"
            lines.append(f"{label:46}{part['ours']:10.4g}{part['theirs']:10.4g}{ratio:8.2f}{limit}")
    return "\n".join(lines)


def share(result: Result) -> float | None:
    """Share of the limit `at_best` that our side reaches, at most 1; None: no limit is known.

    Rates (a unit per second) are compared the other way round than seconds.
    """
    if "at_best" not in result:
        return None
    ours, best = result["ours"], result["at_best"]
    return min(1.0, ours / best if str(result.get("unit", "")).endswith("/s") else best / ours)


def _lines(name: str, result: Result, indent: str) -> Iterator[tuple[str, Result]]:
    if "ours" in result:
        yield f"{indent}{name}" + (f" [{result['unit']}]" if "unit" in result else ""), result
    for key, part in result.items():
        if isinstance(part, dict) and key not in UNSHOWN:
            yield from _lines(key, part, indent + "  ")


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_short(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
