"""Numbers as texts of pages and tables. Only here fractions become per cent."""

from collections.abc import Mapping, Sequence
from typing import Any

from lfpc.metrics.statistics import p_text

NOTHING = "\u2013"
"""Text of a missing value."""


def percent(value: float | None, *, signed: bool = False) -> str:
    """A fraction as per cent with one decimal."""
    return (
        NOTHING
        if value is None
        else f"{100 * value:{'+' if signed else ''}z.1f} %".replace("-", "\u2212")
    )


def with_interval(
    value: float | None, ends: Sequence[float | None] | None, *, signed: bool = False
) -> str:
    """A fraction as per cent, its interval behind it."""
    behind = "" if value is None else bracketed(ends)
    return percent(value, signed=signed) + (behind and f" {behind}")


def bracketed(ends: Sequence[float | None] | None) -> str:
    """Two fractions as per cent in brackets; empty without both."""
    low, high = ends or (None, None)
    if low is None or high is None:
        return ""
    return f"[{100 * low:z.1f}, {100 * high:z.1f}]".replace("-", "\u2212")


def number(value: float | None, digits: int = 1) -> str:
    """A number with `digits` decimals and a comma between thousands."""
    return NOTHING if value is None else f"{value:z,.{digits}f}".replace("-", "\u2212")


def points(difference: Mapping[str, Any]) -> str:
    """The delta of a difference in percentage points, its interval behind it."""
    text = with_interval(
        difference.get("delta"), [difference.get("low"), difference.get("high")], signed=True
    )
    return text.replace(" %", "").replace("+0.0", "0.0")


def nats(difference: Mapping[str, Any]) -> str:
    """The delta of a difference in nats, its interval behind it."""
    value, low, high = (difference.get(key) for key in ("delta", "low", "high"))
    if value is None:
        return NOTHING
    ends = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{value:+.2f}{ends}".replace("-", "\u2212")


def p_value(value: float | None) -> str:
    """A p-value as text."""
    return NOTHING if value is None else p_text(value)
