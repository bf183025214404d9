"""Bars, and estimates with intervals, as plain geometry, which a template draws as SVG.

Every figure keeps its numbers: `columns` and `values` are its CSV file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lfpc.report.canvas import (
    BOTTOM,
    COUNTS,
    LEFT,
    LINE,
    RIGHT,
    TOP,
    WIDTH,
    Tick,
    in_unit,
    label_width,
    linear,
    log_ticks,
    logarithmic,
    nice_ticks,
    padded,
    wrapped,
)
from lfpc.report.curves import Curves, Values
from lfpc.report.numbers import number, with_interval
from lfpc.report.numbers import points as points_text

TALL = 240
"""Height of the chart of accuracy against visual tokens."""
SLOT = 13
"""Height of an estimate in its row."""
LEAST_SPAN = 0.1
"""Least range of an axis of shares, so that equal estimates are not far apart."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A horizontal bar with its label and count, in SVG units."""

    x: float
    y: float
    width: float
    height: float
    label: Tick
    count: int


@dataclass(frozen=True, slots=True)
class Bars:
    """Counts as horizontal bars."""

    kind: ClassVar[str] = "bars"
    series: ClassVar[tuple[str, ...]] = ()
    name: str
    """Base name of its files."""
    title: str
    bars: tuple[Bar, ...]
    height: float
    columns: tuple[str, ...]
    values: Values

    @property
    def text(self) -> str:
        """Text alternative of the figure."""
        return f"{self.title}: " + ", ".join(f"{name}: {count}" for name, count in self.values)


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A value with its 95 % interval, and the episodes behind it."""

    value: float
    low: float | None
    high: float | None
    href: str = ""

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; without one the value alone."""
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        return low, high

    def text(self, unit: str) -> str:
        """The value with its interval, as in the tables."""
        if unit == "points":
            return points_text({"delta": self.value, "low": self.low, "high": self.high})
        return (
            with_interval(self.value, [self.low, self.high]) if unit == "%" else number(self.value)
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """An estimate on the canvas with the line of its interval, in SVG units. `series` sets the
    colour.
    """

    x: float
    y: float
    ends: tuple[float, float, float, float]
    """The interval from (x, y) to (x, y)."""
    series: int
    label: str
    href: str


@dataclass(frozen=True, slots=True)
class Points:
    """Estimates of several series: a row for each place, or over a quantity with lines between."""

    kind: ClassVar[str] = "points"
    name: str
    title: str
    marks: tuple[Mark, ...]
    series: tuple[str, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    columns: tuple[str, ...]
    values: Values
    height: float
    left: float
    """Width of the labels at the left."""
    rows: bool = True
    """Whether `y_ticks` are rows, without a line each."""
    zero: float | None = None
    """Position of a zero within the axis."""
    lines: tuple[tuple[int, str], ...] = ()
    """Lines through the marks of a series: its number, and an SVG point list."""

    @property
    def text(self) -> str:
        """Text alternative of the figure."""
        return f"{self.title}: " + "; ".join(mark.label for mark in self.marks)


Figure = Curves | Bars | Points


def bars(name: str, title: str, counts: Mapping[str, int], *, of: str) -> Bars:
    """Counts as bars, in the order of `counts`; `of` names the counted things."""
    labels = [wrapped(label) for label in counts]
    left = label_width(labels)
    top = max(counts.values(), default=0) or 1
    drawn: list[Bar] = []
    y = 2.0
    for label, count in zip(labels, counts.values(), strict=True):
        height = max(17, LINE * (label.count("\n") + 1) + 5)
        middle = Tick(y + height / 2, label)
        width = (WIDTH - left - COUNTS) * count / top
        drawn.append(Bar(left, y, width, height, middle, count))
        y += height + 5
    return Bars(name, title, tuple(drawn), y, (of, "count"), tuple(counts.items()))


def points(
    name: str,
    title: str,
    places: Mapping[str, Mapping[str, IntervalEstimate]],
    *,
    of: str,
    unit: str = "%",
) -> Points:
    """Estimates of several series below each other, in a row for each named place.

    Args:
        name, title: name and title of the figure.
        places: estimates by series for each place; a series may be missing.
        of: what the places are.
        unit: "%", "points", or "" for plain numbers.
    """
    series = list(dict.fromkeys(label for found in places.values() for label in found))
    known = [one for found in places.values() for one in found.values()]
    low, high = padded([0.0, *(end for one in known for end in one.ends)])
    if unit:
        low, high = max(low, -1.0), min(max(high, low + LEAST_SPAN), 1.0)
    labels = [wrapped(place) for place in places]
    left = label_width(labels)
    x = linear((low, high), left, WIDTH - RIGHT)
    marks: list[Mark] = []
    ticks: list[Tick] = []
    y = float(TOP)
    for (place, found), label in zip(places.items(), labels, strict=True):
        height = max(SLOT * len(found), LINE * (label.count("\n") + 1)) + 8
        ticks.append(Tick(y + height / 2, label))
        for i, (which, one) in enumerate(found.items()):
            at = y + height / 2 + SLOT * (i - (len(found) - 1) / 2)
            ends = (x(one.ends[0]), at, x(one.ends[1]), at)
            text = f"{which}, {place}: {one.text(unit)}"
            marks.append(Mark(x(one.value), at, ends, series.index(which), text, one.href))
        y += height
    values = tuple(
        (place, label, one.value, one.low, one.high)
        for place, found in places.items()
        for label, one in found.items()
    )
    return Points(
        name,
        title,
        tuple(marks),
        tuple(series),
        tuple(Tick(x(v), in_unit(v, unit)) for v in nice_ticks(low, high, 4)),
        tuple(ticks),
        (of, "series", "value", "low", "high"),
        values,
        y + BOTTOM,
        left,
        zero=x(0.0) if low < 0 < high else None,
    )


def against(
    name: str,
    title: str,
    series: Mapping[str, Sequence[tuple[str, float, IntervalEstimate]]],
    *,
    over: str,
) -> Points:
    """Shares against a positive quantity on a logarithmic axis, the points of a series connected.

    Args:
        name, title: name and title of the figure.
        series: by label, its (name, quantity, share).
        over: what the quantity is, for the CSV file.
    """
    known = [one for some in series.values() for one in some]
    if not known:
        return Points(name, title, (), (), (), (), (), (), TALL, LEFT)
    xs = [quantity for _, quantity, _ in known]
    span = (min(xs) / 1.15, max(xs) * 1.15)
    low, high = padded([end for *_, one in known for end in one.ends])
    low, high = max(low, 0.0), min(max(high, low + LEAST_SPAN), 1.0)
    x = logarithmic(span, LEFT, WIDTH - RIGHT)
    y = linear((low, high), TALL - BOTTOM, TOP)
    marks: list[Mark] = []
    lines: list[tuple[int, str]] = []
    for i, some in enumerate(series.values()):
        path = sorted((quantity, one.value) for _, quantity, one in some)
        if len(path) > 1:
            lines.append((i, " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in path)))
        for which, quantity, one in some:
            at = x(quantity)
            ends = (at, y(one.ends[0]), at, y(one.ends[1]))
            text = f"{which}: {one.text('%')} at {number(quantity, 0)} {over}"
            marks.append(Mark(at, y(one.value), ends, i, text, one.href))
    ticks = log_ticks(*span)
    ticks = ticks if len(ticks) > 1 else sorted({float(f"{value:.3g}") for value in xs})
    return Points(
        name,
        title,
        tuple(marks),
        tuple(series),
        tuple(Tick(x(v), in_unit(v, "")) for v in ticks),
        tuple(Tick(y(v), in_unit(v, "%")) for v in nice_ticks(low, high)),
        ("condition", over, "accuracy", "low", "high"),
        tuple((which, quantity, one.value, one.low, one.high) for which, quantity, one in known),
        TALL,
        LEFT,
        rows=False,
        lines=tuple(lines),
    )
