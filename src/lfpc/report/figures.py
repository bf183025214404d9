"""Curves, bars and points with intervals as plain geometry, which a template draws as SVG.

Every figure keeps its numbers: `columns` and `values` are its CSV file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import Any, ClassVar

WIDTH = 360
HEIGHT = 200
LEFT = 48
RIGHT = 10
TOP = 10
BOTTOM = 26
"""Size of a figure and its margins, in SVG units."""
ROW = 22
LABELS = 130
COUNTS = 56
"""Geometry of horizontal bars, in SVG units: height with gap, width of the labels, width of the
counts."""
LONGEST_LABEL = 22
KNOWN = {
    "reward": "Reward",
    "accuracy": "Accuracy",
    "tool_rate": "Share of episodes with a crop",
    "turns": "Turns",
    "iou": "IoU",
    "box_area": "Area of the crops, share of the picture",
    "entropy": "Entropy of the replies, nats per token",
    "zero_variance": "Share of groups without a signal (zero variance)",
    "validation": "Validation",
}
"""Titles of the quantities that come first; other metrics follow under their own names."""
_NOT_PLOTTED = ("step", "time", "seed", "seconds")

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled position on an axis, in SVG units."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """One arm's curve as SVG point lists: `raw` as measured, `smooth` its running mean. `series`
    sets the colour.
    """

    label: str
    series: int
    raw: str
    smooth: str
    last: str


Values = tuple[tuple[str | float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """Curves of one quantity over training steps or another ordered quantity."""

    kind: ClassVar[str] = "curves"
    name: str
    """Base name of its files."""
    title: str
    main: bool
    """Whether the quantity is in `KNOWN`."""
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    columns: tuple[str, ...]
    values: Values
    over: str = "training step"

    @property
    def text(self) -> str:
        """Text alternative of the figure."""
        return f"{self.title} by {self.over}; last values: " + ", ".join(
            f"{line.label} {line.last}" for line in self.lines
        )


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar with its label and count, in SVG units."""

    x: float
    y: float
    width: float
    height: float
    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Bars:
    """A histogram."""

    kind: ClassVar[str] = "bars"
    name: str
    title: str
    bars: tuple[Bar, ...]
    columns: tuple[str, ...]
    values: Values

    @property
    def text(self) -> str:
        """Text alternative of the figure."""
        return f"{self.title}: " + ", ".join(f"{bar.label}: {bar.count}" for bar in self.bars)


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A value with its 95 % interval, and the episodes behind it."""

    value: float
    low: float | None
    high: float | None
    href: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """An estimate on the canvas, in SVG units. `series` sets the colour."""

    x: float
    y: float
    low: float
    high: float
    series: int
    label: str
    href: str


@dataclass(frozen=True, slots=True)
class Points:
    """Estimates of several series at the same x positions."""

    kind: ClassVar[str] = "points"
    name: str
    title: str
    marks: tuple[Mark, ...]
    series: tuple[str, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    columns: tuple[str, ...]
    values: Values

    @property
    def text(self) -> str:
        """Text alternative of the figure."""
        return f"{self.title}: " + "; ".join(mark.label for mark in self.marks)


Figure = Curves | Bars | Points


def flat_numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of a step's metrics, with dotted names for nested ones."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= flat_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            found[f"{prefix}{key}"] = float(value)
    return found


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = floor(low / step + 0.999_999)
    return [
        round((first + i) * step, 12)
        for i in range(about * 3)
        if (first + i) * step <= high + step * 1e-9
    ]


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and the up to `window - 1` before it."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [
        (sums[i + 1] - sums[max(0, i + 1 - window)]) / min(window, i + 1)
        for i in range(len(values))
    ]


def training_figures(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Curves]:
    """One figure per quantity with all arms, the quantities of `KNOWN` first.

    Args:
        curves: metrics of each arm, by "step" (else by position).
    """
    series = {
        arm: [(row.get("step", i), flat_numbers(row)) for i, row in enumerate(rows)]
        for arm, rows in curves.items()
    }
    keys = dict.fromkeys(
        key
        for rows in series.values()
        for _, values in rows
        for key in values
        if key not in _NOT_PLOTTED
    )
    order = sorted(keys, key=lambda key: _rank(key))
    figures = [
        _figure(
            key, {arm: [(s, v[key]) for s, v in rows if key in v] for arm, rows in series.items()}
        )
        for key in order
    ]
    return [figure for figure in figures if any(line.smooth for line in figure.lines)]


def _rank(key: str) -> int:
    names = list(KNOWN)
    return next(
        (
            i
            for i, name in enumerate(names)
            if key == name or key.startswith((f"{name}.", f"{name}_", f"{name}/"))
        ),
        len(names),
    )


def _title(key: str) -> str:
    """The title of a quantity; a part such as `reward.tool` has its parent's title first."""
    name = next(
        (
            name
            for name in KNOWN
            if key == name or key.startswith((f"{name}.", f"{name}_", f"{name}/"))
        ),
        None,
    )
    if name is None or key == name:
        return KNOWN.get(key, key)
    return f"{KNOWN[name]}: {key[len(name) + 1 :]}"


def _figure(key: str, points: Mapping[str, Sequence[Point]]) -> Curves:
    xs = [x for line in points.values() for x, _ in line]
    ys = [y for line in points.values() for _, y in line]
    x_range = (min(xs), max(max(xs), min(xs) + 1))
    y_range = _padded(ys)
    lines = tuple(
        _line(arm, i, line, x_range, y_range)
        for i, (arm, line) in enumerate(points.items())
        if line
    )
    x_ticks = tuple(Tick(_x(v, x_range), f"{v:g}") for v in nice_ticks(*x_range))
    by_step = {arm: dict(line) for arm, line in points.items() if line}
    values = tuple(
        (step, *(line.get(step) for line in by_step.values())) for step in sorted(set(xs))
    )
    name = "training-" + "".join(sign if sign.isalnum() else "-" for sign in key)
    return Curves(
        name,
        _title(key),
        _rank(key) < len(KNOWN),
        lines,
        x_ticks,
        _y_ticks(y_range),
        ("step", *by_step),
        values,
    )


def _padded(ys: Sequence[float]) -> Point:
    low = min(ys)
    high = max(ys)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - pad, high + pad


def _y_ticks(y_range: Point) -> tuple[Tick, ...]:
    return tuple(Tick(_y(v, y_range), f"{v:g}") for v in nice_ticks(*y_range))


def _line(arm: str, series: int, points: Sequence[Point], x_range: Point, y_range: Point) -> Line:
    points = sorted(points)
    smooth = running_mean([y for _, y in points], max(1, len(points) // 12))

    def path(ys: Sequence[float]) -> str:
        return " ".join(
            f"{_x(x, x_range):.1f},{_y(y, y_range):.1f}"
            for (x, _), y in zip(points, ys, strict=True)
        )

    return Line(
        arm,
        series,
        path([y for _, y in points]),
        path(smooth),
        f"{round(smooth[-1], 2) + 0.0:.2f}" if abs(smooth[-1]) < 100 else f"{smooth[-1]:.0f}",
    )


def _x(value: float, span: Point) -> float:
    return LEFT + (value - span[0]) / (span[1] - span[0]) * (WIDTH - LEFT - RIGHT)


def _y(value: float, span: Point) -> float:
    return HEIGHT - BOTTOM - (value - span[0]) / (span[1] - span[0]) * (HEIGHT - TOP - BOTTOM)


def bars(name: str, title: str, counts: Mapping[str, int], *, of: str) -> Bars:
    """A histogram in the order of `counts`; `of` names the counted things."""
    top = max(counts.values(), default=0)
    slot = (WIDTH - LEFT - RIGHT) / max(len(counts), 1)
    room = HEIGHT - TOP - BOTTOM - 16
    heights = [room * count / top if top else 0.0 for count in counts.values()]
    drawn = tuple(
        Bar(LEFT + slot * (i + 0.12), HEIGHT - BOTTOM - height, slot * 0.76, height, label, count)
        for i, ((label, count), height) in enumerate(zip(counts.items(), heights, strict=True))
    )
    return Bars(name, title, drawn, (of, "count"), tuple(counts.items()))


def points(
    name: str, title: str, places: Mapping[str, Mapping[str, IntervalEstimate]], *, of: str
) -> Points:
    """Estimates of several series, side by side at named x positions.

    Args:
        name, title: name and title of the figure.
        places: estimates by series for each x position; a series may be missing.
        of: label of the x axis.
    """
    series = list(dict.fromkeys(label for found in places.values() for label in found))
    known = [estimate for found in places.values() for estimate in found.values()]
    ends = [end for one in known for end in (one.value, one.low, one.high) if end is not None]
    y_range = _padded([*ends, 0.0])
    slot = (WIDTH - LEFT - RIGHT) / max(len(places), 1)
    marks: list[Mark] = []
    for i, (place, found) in enumerate(places.items()):
        for label, one in found.items():
            x = LEFT + slot * (i + 0.15 + 0.7 * (series.index(label) + 0.5) / len(series))
            low, high = (one.value if end is None else end for end in (one.low, one.high))
            text = f"{label}, {place}: {one.value:.3g}" + (
                f" [{low:.3g}, {high:.3g}]" if one.low is not None else ""
            )
            marks.append(
                Mark(
                    x,
                    _y(one.value, y_range),
                    _y(low, y_range),
                    _y(high, y_range),
                    series.index(label),
                    text,
                    one.href,
                )
            )
    letters = max(3, int(slot / 6))
    x_ticks = tuple(
        Tick(
            LEFT + slot * (i + 0.5), place if len(place) <= letters else f"{place[: letters - 1]}…"
        )
        for i, place in enumerate(places)
    )
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
        x_ticks,
        _y_ticks(y_range),
        (of, "series", "value", "low", "high"),
        values,
    )


def rows(counts: Mapping[str, int]) -> list[Bar]:
    """Horizontal bars in the order of `counts`; long names are shortened."""
    top = max(counts.values(), default=0) or 1
    room = WIDTH - LABELS - COUNTS
    return [
        Bar(LABELS, i * ROW + 2, room * count / top, ROW - 5, _short(label), count)
        for i, (label, count) in enumerate(counts.items())
    ]


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"


def level_figure(title: str, points: Mapping[str, Sequence[Point]], names: Sequence[str]) -> Curves:
    """Curves of shares over the levels of a ladder; x is an index into `names`."""
    x_range = (-0.2, len(names) - 0.8)
    y_range = (0.0, 1.02)
    lines = tuple(
        _line(label, i + 1, line, x_range, y_range)
        for i, (label, line) in enumerate(points.items())
        if line
    )
    x_ticks = tuple(Tick(_x(i, x_range), name) for i, name in enumerate(names))
    y_ticks = tuple(Tick(_y(v, y_range), f"{v:.0%}") for v in nice_ticks(0, 1))
    by_level = {label: dict(line) for label, line in points.items()}
    values = tuple(
        (name, *(line.get(i) for line in by_level.values())) for i, name in enumerate(names)
    )
    return Curves(
        "levels", title, True, lines, x_ticks, y_ticks, ("level", *by_level), values, over="level"
    )
