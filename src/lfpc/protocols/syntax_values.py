"""Known values of expressions in a program (a number, a few numbers, a picture), and the arithmetic
on them.

Used by `lfpc.protocols.syntax`. All numbers are floats, so no expression can grow without bound.
"""

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lfpc.boxes import Box


@dataclass(frozen=True, slots=True)
class CodePicture:
    """A picture in the program: its region of the file's picture, and its current size in
    pixels.
    """

    region: Box
    width: float
    height: float
    corners: tuple[float, float, float, float] | None = None
    """The same region in pixels of the file's picture, beyond its edges too; None: unused."""

    def attribute(self, name: str) -> "Value":
        """`size`, `width`, `height` or `shape`."""
        known: dict[str, Value] = {
            "size": (self.width, self.height),
            "width": self.width,
            "height": self.height,
            "shape": (self.height, self.width, 3.0),
        }
        return known.get(name)


Value = float | tuple[float | None, ...] | CodePicture | None
"""A known value; None: unknown."""

KEEPS_SHAPE = frozenset(
    {
        "array",
        "asarray",
        "fromarray",
        "cvtColor",
        "convert",
        "copy",
        "enhance",
        "filter",
        "filter2D",
        "GaussianBlur",
        "medianBlur",
    }
    | {
        "Contrast",
        "Sharpness",
        "Brightness",
        "Color",
        "exif_transpose",
        "autocontrast",
        "equalize",
        "convertScaleAbs",
    }
)
"""Functions whose result has the region and size of their argument."""
_OF_ONE: Mapping[str, Callable[[float], float]] = {
    "int": lambda a: float(math.trunc(a)),
    "float": lambda a: a,
    "round": lambda a: float(round(a)),
    "floor": lambda a: float(math.floor(a)),
    "ceil": lambda a: float(math.ceil(a)),
    "abs": abs,
}
_OF_SEVERAL: Mapping[str, Callable[[Sequence[float]], float]] = {"min": min, "max": max}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}


def number(constant: int | float) -> float | None:
    """A constant as a float; None where it is too large for one."""
    return _safe(lambda: float(constant))


def calculated(op: ast.operator, a: Value, b: Value) -> float | None:
    """`a op b`."""
    if not isinstance(a, float) or not isinstance(b, float) or type(op) not in _ARITHMETIC:
        return None
    return _safe(lambda: _ARITHMETIC[type(op)](a, b))


def compared(op: ast.cmpop, a: Value, b: Value) -> bool | None:
    """Whether `a op b`."""
    if not isinstance(a, float) or not isinstance(b, float) or type(op) not in _COMPARISONS:
        return None
    return _COMPARISONS[type(op)](a, b)


def function_of(name: str, given: Sequence[Value]) -> float | None:
    """`int(a)`, `max(a, b)` and the like."""
    numbers = [one for one in given if isinstance(one, float)]
    if len(numbers) < len(given):
        return None
    if name in _OF_ONE and len(numbers) == 1:
        return _safe(lambda: _OF_ONE[name](numbers[0]))
    return _OF_SEVERAL[name](numbers) if name in _OF_SEVERAL and len(numbers) > 1 else None


def element(values: tuple[float | None, ...], place: Value) -> float | None:
    """`values[place]`."""
    if not isinstance(place, float) or not -len(values) <= place < len(values):
        return None
    return values[int(place)]


def resized(picture: CodePicture, size: Value, fx: Value, fy: Value) -> CodePicture | None:
    """The picture at another size, given as (width, height) or as two scales."""
    across, down = size if isinstance(size, tuple) and len(size) == 2 else (None, None)
    if size is None and isinstance(fx, float) and isinstance(fy, float):
        across = picture.width * fx
        down = picture.height * fy
    if across is None or down is None or not (1 <= across < math.inf and 1 <= down < math.inf):
        return None
    return replace(picture, width=across, height=down)


def _safe(calculate: Callable[[], float]) -> float | None:
    try:
        return calculate()
    except (ArithmeticError, ValueError):
        return None
