"""Shared parts of the as-released parsers: the pixels that a published script cuts, and what it
does when it fails.

The scripts are followed step by step, down to the text of Python's own errors, as several show that
text to the model. What they pass to `eval` is read as a literal and never evaluated.
"""

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from lfpc.boxes import Box, Corners, Size
from lfpc.dialogue import Action, Answer, Crop, Malformed, Reason
from lfpc.errors import BoxError
from lfpc.images import MAX_ASPECT, CropRules, ToolBox, View, resized_size

FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a published script can fail with on a reply."""
LONGEST_ERROR = 400
"""Maximum characters of an error text."""
LONGEST_LITERAL = 4_000
"""Maximum characters that are read as a Python literal."""
MOST_CUT = 178_956_970
"""Maximum pixels of a cut: twice Pillow's limit, beyond which its `crop` fails."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""An object's place in memory in an error, which differs from run to run."""
FURTHEST = 2**30
"""Maximum distance of a cut's corner from the picture's, in pixels, which Pillow's `crop` takes."""


def whole_text(text: str) -> Answer:
    """The whole reply as the answer, as scripts take it that find nothing else."""
    return Answer(text.strip())


def literal(text: str) -> Any:
    """A Python literal, where the script calls `eval`.

    Raises:
        FAILURES: not a literal.
    """
    if len(text) > LONGEST_LITERAL:
        raise ValueError("the literal is too long")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parser warns about odd code of the policy
        return ast.literal_eval(text)


def attempt(
    run: Callable[[], Action], worded: Callable[[Exception], str], reason: Reason = Reason.BAD_BOX
) -> Action:
    """The action of `run`; if it fails as a script does, a Malformed with the words of the error.

    Args:
        run: the steps of the script.
        worded: the error -> the text that the script shows for it.
        reason: reason of an error that is about the box; others follow from its type.
    """
    try:
        return run()
    except FAILURES as error:
        if isinstance(error, LookupError | AttributeError):
            reason = Reason.BAD_SOURCE if isinstance(error, IndexError) else Reason.BAD_BOX
        elif isinstance(error, SyntaxError) or type(error).__name__ == "JSONDecodeError":
            reason = Reason.BAD_JSON
        return Malformed(reason, _ADDRESS.sub("", worded(error))[:LONGEST_ERROR])


def pil_corners(box: Sequence[Any]) -> Corners:
    """The whole pixels that Pillow's `Image.crop` cuts for `box`: rounded, halves to even.

    Raises:
        ValueError: right of `right`, or below `lower`, in Pillow's words; or not finite.
        TypeError: not numbers.
    """
    left, top, right, bottom = box
    if right < left:
        raise ValueError("Coordinate 'right' is less than 'left'")
    if bottom < top:
        raise ValueError("Coordinate 'lower' is less than 'upper'")
    corners = round(left), round(top), round(right), round(bottom)
    if max(map(abs, corners)) > FURTHEST:
        raise OverflowError("signed integer is greater than maximum")
    if (corners[2] - corners[0]) * (corners[3] - corners[1]) > MOST_CUT:
        raise ValueError("the cut exceeds the limit of pixels")
    return corners


def filled(cut: Corners) -> Corners:
    """`cut`, if there is a pixel in it.

    Raises:
        ValueError: there is none, in the words of Pillow's `resize`.
    """
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise ValueError("Box can't be empty")
    return cut


def tool_size(sides: tuple[float, float], rules: CropRules) -> Size:
    """The size to which a tool resizes its cut, checked as the model's processor checks it.

    Raises:
        FAILURES: the cut has no area, or the result is narrower than a processor takes.
    """
    size = resized_size(
        sides, min_tokens=rules.min_tokens, max_tokens=rules.max_tokens, factor=rules.factor
    )
    aspect = max(size) / min(size)
    if aspect > MAX_ASPECT:
        raise ValueError(f"absolute aspect ratio must be smaller than {MAX_ASPECT}, got {aspect}")
    return size


def tool_crop(
    cut: Corners,
    view: View,
    frame: Size,
    *,
    requested: Sequence[float] | None = None,
    sides: tuple[float, float] | None = None,
    emitted: Sequence[Any] = (),
    source: int = 0,
) -> Crop:
    """The Crop of what a tool cuts.

    Args:
        cut: whole pixels (left, top, right, bottom) of the picture that the tool has, which may
            reach beyond its edges.
        view: that picture as shown; the crop comes from the same region of the original.
        frame: (width, height) of the picture that the tool has.
        requested: the policy's box in the same pixels, if the tool cuts more than it; None: `cut`.
        sides: (width, height) of the picture that the tool makes of it; None: of `cut`.
        emitted: the policy's numbers; stored if they are four and finite.
        source: number of the picture.
    """
    region = view.region
    width, height = view.original_size
    across = (region.x1 - region.x0) / frame[0]
    down = (region.y1 - region.y0) / frame[1]
    left, right = (round((region.x0 + x * across) * width) for x in (cut[0], cut[2]))
    top, bottom = (round((region.y0 + y * down) * height) for y in (cut[1], cut[3]))
    right = max(right, left + 1)
    bottom = max(bottom, top + 1)
    try:
        inside = Box.from_pixels(cut, frame).within(region)
    except BoxError:
        inside = _nearest((left, top, right, bottom), (width, height))
    shown = ToolBox(
        *inside.corners,
        cut=(left, top, right, bottom),
        sides=sides or (max(cut[2] - cut[0], 1), max(cut[3] - cut[1], 1)),
    )
    return Crop(
        _requested(requested, inside, frame, region),
        wider=shown,
        emitted=_four_finite(emitted),
        source=source,
    )


def _four_finite(emitted: Sequence[Any]) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, emitted))
    except (OverflowError, TypeError, ValueError):
        return ()
    return numbers if len(numbers) == 4 and all(map(isfinite, numbers)) else ()


def _requested(numbers: Sequence[float] | None, inside: Box, frame: Size, region: Box) -> Box:
    """The part of the requested box that the tool shows; all that it shows if there is none."""
    if numbers is None:
        return inside
    try:
        box = Box.from_pixels(numbers, frame).within(region)
        return Box(
            max(box.x0, inside.x0),
            max(box.y0, inside.y0),
            min(box.x1, inside.x1),
            min(box.y1, inside.y1),
        )
    except BoxError:
        return inside


def _nearest(cut: Corners, size: Size) -> Box:
    """The pixels of the original nearest to a cut that lies outside of it."""
    width, height = size
    left = min(max(cut[0], 0), width - 1)
    top = min(max(cut[1], 0), height - 1)
    right = max(min(cut[2], width), left + 1)
    bottom = max(min(cut[3], height), top + 1)
    return Box(left / width, top / height, right / width, bottom / height)
