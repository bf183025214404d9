"""Warnings about a failing run, from its metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from lfpc.training.statistics import mean

WINDOW = 5
"""Steps to average, at the start of the run and now."""
TEXTS = {
    "no_tool": "the policy has almost stopped cropping: the tool reward may be too small, or crops "
    "may not help",
    "turns": "episodes have become much longer: the policy may crop without end",
    "box_grows": "boxes have grown to more than twice their area: the policy may be cropping "
    "everything",
    "box_shrinks": "boxes have shrunk to less than a quarter of their area",
    "no_gradient": "the gradient was not finite or no rollout could be trained in any of the "
    "last steps",
    "logprob_gap": "training computes other log-probabilities than sampling did",
}


def alarms(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Codes (keys of `TEXTS`) of the current alarms.

    Args:
        history: metrics of all steps so far, oldest first; no alarms before two windows of steps.
    """
    if len(history) < 2 * WINDOW:
        return []
    first = history[:WINDOW]
    now = history[-WINDOW:]
    found: list[str] = []
    tool = _mean(first, "tool_rate")
    tool_now = _mean(now, "tool_rate")
    if tool is not None and tool_now is not None and tool_now < 0.05 < tool:
        found.append("no_tool")
    turns = _mean(first, "turns")
    turns_now = _mean(now, "turns")
    if turns and turns_now and turns_now > turns + 1 and turns_now > 1.5 * turns:
        found.append("turns")
    area = _mean(first, "box_area")
    area_now = _mean(now, "box_area")
    if area and area_now and area_now > 2 * area:
        found.append("box_grows")
    if area and area_now and area_now < area / 4:
        found.append("box_shrinks")
    if all(row.get("grad_norm") is None for row in now):
        found.append("no_gradient")
    if (_mean(now, "logprob_gap") or 0.0) > 0.5:
        found.append("logprob_gap")
    return found


def new_alarms(codes: Sequence[str], history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Texts of those `codes` that no step of `history` has raised."""
    known = {code for row in history for code in row.get("alarms", ())}
    return [TEXTS[code] for code in codes if code not in known]


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    return mean(row[key] for row in rows if row.get(key) is not None)
