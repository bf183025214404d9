"""Rectangles on a picture, in one frame of reference.

Boxes are fractions of width and height, x right, y down. A box therefore means the same region at
any resolution. Pixels exist only in `Box.from_pixels` (a model's numbers) and `Box.to_pixels` (the
cropper's).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite
from statistics import fmean
from typing import Self

from lfpc.errors import BoxError

Size = tuple[int, int]
"""Picture size in pixels, (width, height), as PIL gives it."""
Corners = tuple[int, int, int, int]
"""Whole-pixel rectangle (left, top, right, bottom)."""

_ROUNDING = 1e-9
"""Tolerance of whole pixels, for rounding errors of products such as 0.7 * 10."""


@dataclass(frozen=True, slots=True)
class Box:
    """Axis-aligned rectangle: (x0, y0) top left, (x1, y1) bottom right, in [0, 1]."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (0 <= self.x0 < self.x1 <= 1 and 0 <= self.y0 < self.y1 <= 1):
            raise BoxError(
                f"box {self.corners} must satisfy 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"
            )

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1)."""
        return self.x0, self.y0, self.x1, self.y1

    @property
    def area(self) -> float:
        """Share of the picture, in (0, 1]."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    @classmethod
    def from_pixels(cls, xyxy: Sequence[float], size: tuple[float, float]) -> Self:
        """The box of corner pixels in a picture of `size`; parts outside are cut off, swapped
        corners are ordered.

        Raises:
            BoxError: not four finite numbers, or no area inside the picture.
        """
        width, height = size
        if len(xyxy) != 4 or not all(map(isfinite, xyxy)):
            raise BoxError(f"a box needs 4 finite numbers, got {list(xyxy)}")
        xs = sorted(min(max(x / width, 0.0), 1.0) for x in (xyxy[0], xyxy[2]))
        ys = sorted(min(max(y / height, 0.0), 1.0) for y in (xyxy[1], xyxy[3]))
        return cls(xs[0], ys[0], xs[1], ys[1])

    @classmethod
    def from_annotation(
        cls, xyxy: Sequence[float], size: tuple[float, float], *, pixels: bool = True
    ) -> Self:
        """The box of the corners (left, top, right, bottom) that a data file gives for a picture of
        `size`. Unlike a model's numbers they are not repaired: what is not a box is an error of the
        file. Only an overhang of 1 % of the picture is cut off, and of two pixels.

        Args:
            xyxy: the corners.
            size: (width, height) of the picture in the same unit.
            pixels: whether the unit is pixels, so that numbers up to 1 are a mistake.
        Raises:
            BoxError: not four finite numbers, reversed corners, outside the picture, or fractions
                in place of pixels.
        """
        if len(xyxy) != 4 or not all(map(isfinite, xyxy)):
            raise BoxError(f"a box needs 4 finite numbers, got {list(xyxy)}")
        x0, y0, x1, y1 = xyxy
        if x1 <= x0 or y1 <= y0:
            raise BoxError(
                f"box {list(xyxy)} is not left, top, right, bottom (perhaps width and height)"
            )
        if pixels and max(xyxy) <= 1 < min(size):
            raise BoxError(f"box {list(xyxy)} is in fractions of the picture; pixels are needed")
        for low, high, side in ((x0, x1, size[0]), (y0, y1, size[1])):
            overhang = max(0.01 * side, 2.0 if pixels else 0.0)
            if low < -overhang or high > side + overhang:
                raise BoxError(f"box {list(xyxy)} is not inside the picture")
        return cls.from_pixels(xyxy, size)

    def within(self, outer: "Box") -> Self:
        """This box, given in fractions of the region `outer`, in fractions of the whole: a crop of
        a crop.

        Raises:
            BoxError: too small for distinct corners in floating point.
        """
        width = outer.x1 - outer.x0
        height = outer.y1 - outer.y0
        xs = [min(outer.x0 + x * width, outer.x1) for x in (self.x0, self.x1)]
        ys = [min(outer.y0 + y * height, outer.y1) for y in (self.y0, self.y1)]
        return type(self)(xs[0], ys[0], xs[1], ys[1])

    def padded(self, x: float, y: float) -> Self:
        """Wider by `x` on the left and on the right, and by `y` above and below, within the
        picture.
        """
        return type(self)(
            max(0.0, self.x0 - x),
            max(0.0, self.y0 - y),
            min(1.0, self.x1 + x),
            min(1.0, self.y1 + y),
        )

    def grown(self, share: float) -> Self:
        """Wider by `share` of its own width on the left and on the right, likewise above and below,
        within the picture.
        """
        return self.padded(share * (self.x1 - self.x0), share * (self.y1 - self.y0))

    def at_least(self, width: float, height: float) -> Self:
        """Widened about its centre to at least `width` and `height`, and moved into the
        picture.
        """
        x0, x1 = _stretched(self.x0, self.x1, width)
        y0, y1 = _stretched(self.y0, self.y1, height)
        return type(self)(x0, y0, x1, y1)

    def to_pixels(self, size: Size) -> Corners:
        """Smallest whole-pixel rectangle (x0, y0, x1, y1) of a picture of `size` that covers the
        box; at least one pixel.
        """
        width, height = size
        left = min(floor(self.x0 * width + _ROUNDING), width - 1)
        top = min(floor(self.y0 * height + _ROUNDING), height - 1)
        right = ceil(self.x1 * width - _ROUNDING)
        bottom = ceil(self.y1 * height - _ROUNDING)
        return left, top, max(right, left + 1), max(bottom, top + 1)


def _stretched(low: float, high: float, least: float) -> tuple[float, float]:
    if high - low >= least:
        return low, high
    if least >= 1:
        return 0.0, 1.0
    low = min(max(0.0, (low + high - least) / 2), 1 - least)
    return low, min(1.0, low + least)


WHOLE = Box(0.0, 0.0, 1.0, 1.0)
"""The whole picture."""


def intersection_area(a: Box, b: Box) -> float:
    """Shared area as a share of the picture, in [0, 1]."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(0.0, width) * max(0.0, height)


def iou(a: Box, b: Box) -> float:
    """Intersection over union, in [0, 1]."""
    shared = intersection_area(a, b)
    return min(1.0, shared / (a.area + b.area - shared))


def coverage(box: Box, target: Box) -> float:
    """Share of `target` that lies inside `box`, in [0, 1]."""
    return min(1.0, intersection_area(box, target) / target.area)


def corner_distance(a: Box, b: Box) -> float:
    """Mean absolute difference of the four corner coordinates, in fractions of the picture, in [0,
    1].
    """
    return fmean(abs(p - q) for p, q in zip(a.corners, b.corners, strict=True))


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box that contains all of `boxes`."""
    if not boxes:
        raise BoxError("the union of no boxes is not a box")
    return Box(
        min(b.x0 for b in boxes),
        min(b.y0 for b in boxes),
        max(b.x1 for b in boxes),
        max(b.y1 for b in boxes),
    )


def target_iou(boxes: Sequence[Box], targets: Sequence[Sequence[Box]]) -> float | None:
    """Localisation of the targets by `boxes`, in [0, 1]; None without boxes or targets.

        mean over targets of max over boxes B and nested truth boxes B_i of IoU(B, B_i)

    Source: rewards.grounding_reward, without its guard.
    """
    if not boxes or not targets:
        return None
    return fmean(max(iou(box, truth) for box in boxes for truth in nested) for nested in targets)
