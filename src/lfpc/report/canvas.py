"""Sizes, ticks and scales of the figures, in SVG units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log, log10
from textwrap import wrap

WIDTH = 360
HEIGHT = 200
LEFT = 48
RIGHT = 10
TOP = 10
BOTTOM = 26
"""Size of a figure and its margins."""
LETTER = 6.6
LINE = 12
"""Width of a letter and height of a line of a label."""
LABEL_LETTERS = 22
"""Letters of a row's label before it continues on the next line."""
COUNTS = 56
"""Width of the counts behind bars."""

Point = tuple[float, float]
Scale = Callable[[float], float]
"""A value of the data -> its position."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    label: str
    """Lines are separated by line feeds."""

    @property
    def lines(self) -> list[str]:
        """The lines of the label."""
        return self.label.split("\n")


def wrapped(label: str) -> str:
    """A row's label in lines of at most `LABEL_LETTERS`."""
    return "\n".join(wrap(label, LABEL_LETTERS)) or label


def label_width(labels: Sequence[str]) -> float:
    """Width of the longest line of the labels, with the gap behind it."""
    lines = [line for label in labels for line in label.split("\n")]
    return max((len(line) for line in lines), default=0) * LETTER + 8


def linear(span: Point, start: float, end: float) -> Scale:
    """A scale from `span` to positions `start` to `end`."""
    return lambda value: start + (value - span[0]) / (span[1] - span[0]) * (end - start)


def logarithmic(span: Point, start: float, end: float) -> Scale:
    """As `linear`, with equal distances for equal ratios."""
    scale = linear((log(span[0]), log(span[1])), start, end)
    return lambda value: scale(log(value))


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


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`: powers of ten, and up to three decades twice and five
    times them.
    """
    factors = (1, 2, 5) if high / low <= 1000 else (1,)
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def padded(values: Sequence[float]) -> Point:
    """The range of the values with a margin."""
    low = min(values)
    high = max(values)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - pad, high + pad


def in_unit(value: float, unit: str) -> str:
    """A tick's text: "%" and "points" are hundred times the value."""
    if unit == "%":
        return f"{100 * value:g} %".replace("-", "\u2212")
    return f"{100 * value if unit == 'points' else value:,g}".replace("-", "\u2212")
