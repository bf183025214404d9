"""Curves over training steps, or over the levels of a ladder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from lfpc.report.canvas import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Point,
    Scale,
    Tick,
    in_unit,
    linear,
    nice_ticks,
    padded,
)

KNOWN = {
    "reward": ("Reward", ""),
    "accuracy": ("Accuracy", "%"),
    "tool_rate": ("Share of episodes with a crop", "%"),
    "box_area": ("Area of the crops, share of the picture", "%"),
    "iou": ("IoU", "%"),
    "iou_last": ("IoU of the last crop", "%"),
    "extra_questions": ("Extra questions of a step (dynamic sampling)", ""),
    "entropy": ("Entropy of the replies, nats per token", ""),
}
"""Titles and units of the quantities that come first; others follow under their own names."""
SHARES = ("iou_best", "malformed", "unanswered", "truncated", "answered_before_crop", "repeats")
"""Further metrics that are shares."""
_NOT_PLOTTED = ("step", "time", "seed", "seconds")

Values = tuple[tuple[str | float | None, ...], ...]


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
    height: float = HEIGHT

    @property
    def text(self) -> str:
        """Text alternative of the figure."""
        return f"{self.title} by {self.over}; last values: " + ", ".join(
            f"{line.label} {line.last}" for line in self.lines
        )

    @property
    def series(self) -> tuple[str, ...]:
        """Labels of the curves."""
        return tuple(line.label for line in self.lines)


def flat_numbers(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of a step's metrics, with dotted names for nested ones."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= flat_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            found[f"{prefix}{key}"] = float(value)
    return found


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
    """One figure per quantity with all arms, the quantities of `KNOWN` first. Quantities with equal
    curves share one figure, under the first one's title.

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
    order = list(KNOWN)
    found: dict[tuple[tuple[Point, ...], ...], list[str]] = {}
    for key in sorted(keys, key=lambda key: order.index(key) if key in KNOWN else len(order)):
        by_arm = tuple(
            tuple((step, row[key]) for step, row in rows if key in row) for rows in series.values()
        )
        found.setdefault(by_arm, []).append(key)
    return [
        _figure(key, same, dict(zip(series, by_arm, strict=True)))
        for by_arm, (key, *same) in found.items()
    ]


def _figure(key: str, same: Sequence[str], points: Mapping[str, Sequence[Point]]) -> Curves:
    """The figure of `key`, whose curves those of `same` equal."""
    title, unit = KNOWN.get(key, (key, "%" if key in SHARES else ""))
    if same:
        title += f" (equal: {', '.join(same)})"
    xs = [x for line in points.values() for x, _ in line]
    x_range = (min(xs), max(max(xs), min(xs) + 1))
    y_range = padded([y for line in points.values() for _, y in line])
    x = linear(x_range, LEFT, WIDTH - RIGHT)
    y = linear(y_range, HEIGHT - BOTTOM, TOP)
    by_step = {arm: dict(line) for arm, line in points.items() if line}
    return Curves(
        "training-" + "".join(sign if sign.isalnum() else "-" for sign in key),
        title,
        key in KNOWN,
        tuple(
            _line(arm, i, line, x, y, unit) for i, (arm, line) in enumerate(points.items()) if line
        ),
        tuple(Tick(x(v), f"{v:g}") for v in nice_ticks(*x_range)),
        tuple(Tick(y(v), in_unit(v, unit)) for v in nice_ticks(*y_range)),
        ("step", *by_step),
        tuple((step, *(line.get(step) for line in by_step.values())) for step in sorted(set(xs))),
    )


def _line(
    arm: str, series: int, points: Sequence[Point], x: Scale, y: Scale, unit: str = ""
) -> Line:
    points = sorted(points)
    smooth = running_mean([value for _, value in points], max(1, len(points) // 12))

    def path(values: Sequence[float]) -> str:
        return " ".join(
            f"{x(step):.1f},{y(value):.1f}" for (step, _), value in zip(points, values, strict=True)
        )

    last = smooth[-1]
    if unit == "%":
        text = f"{100 * last:.1f} %"
    else:
        text = f"{round(last, 2) + 0.0:.2f}" if abs(last) < 100 else f"{last:,.0f}"
    return Line(arm, series, path([value for _, value in points]), path(smooth), text)


def level_figure(title: str, points: Mapping[str, Sequence[Point]], names: Sequence[str]) -> Curves:
    """Curves of shares over the levels of a ladder; x is an index into `names`."""
    x = linear((-0.2, len(names) - 0.8), LEFT, WIDTH - RIGHT)
    y = linear((0.0, 1.02), HEIGHT - BOTTOM, TOP)
    by_level = {label: dict(line) for label, line in points.items()}
    return Curves(
        "levels",
        title,
        True,
        tuple(
            _line(label, i + 1, line, x, y, "%")
            for i, (label, line) in enumerate(points.items())
            if line
        ),
        tuple(Tick(x(i), name) for i, name in enumerate(names)),
        tuple(Tick(y(v), in_unit(v, "%")) for v in nice_ticks(0, 1)),
        ("level", *by_level),
        tuple((name, *(line.get(i) for line in by_level.values())) for i, name in enumerate(names)),
        over="level",
    )
