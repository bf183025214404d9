"""Mini-o3: a box in fractions of a named picture, so a crop may be cut from a crop.

The published rollout reads one exact form of the call, cuts in pixels of the named picture rounded
towards zero, and shows Python's errors; `as_released` does so too.
"""

import json
import re
from collections.abc import Sequence
from math import sqrt
from typing import Any

from lfpc.boxes import Box, Corners, Size
from lfpc.dialogue import Action, Answer, Malformed, Reason
from lfpc.images import CropRules, View
from lfpc.protocols.base import ChatProtocol, MessagePart, Released
from lfpc.protocols.exact import in_order, is_exact
from lfpc.protocols.reading import (
    ANSWER,
    ask,
    call_or_answer,
    check_shape,
    crop_of,
    four_numbers,
    malformed,
    read_json,
)
from lfpc.protocols.released import attempt, literal, tool_crop, tool_size

GROUNDING = re.compile(r"<grounding>(.*?)(?:</grounding>|\Z)", re.DOTALL)
ORIGINAL = "original_image"
FRAME = (1, 1)
ASPECT = 200
"""Maximum aspect ratio of a box."""

LEAST_SIDE = 28
LEAST_PIXELS = 40_000
MOST_PIXELS = 2_000_000
"""Minimum side, and pixels, of a picture that the published rollout shows."""
CROP = CropRules(min_tokens=52, max_tokens=2551)  # 40,000 to 2,000,000 pixels
RELEASED_CROP = CropRules(min_tokens=4, max_tokens=16384)
"""The processor's; the rollout keeps to its pixels itself."""

_HEAD = '<grounding>{"bbox_2d": '
_SOURCE = re.compile(r"\"source\": [',\"]")
_END = re.compile(r"[',\"]\}</grounding>")
_OBSERVATION = re.compile(r"observation_([0-9]{1,6})")

SYSTEM = (
    "You answer questions about a picture. Think between <think> and </think>. Where you "
    "cannot see enough, zoom in by writing "
    f'<grounding>{{"bbox_2d": [x0, y0, x1, y1], "source": "{ORIGINAL}"}}</grounding>: (x0, '
    f"y0) is the top left corner of the region and "
    f"(x1, y1) its bottom right corner, in fractions of the width and height of the "
    f"source, which is '{ORIGINAL}' or 'observation_i'. "
    "When you are sure, write <answer>your answer</answer>"
)
DIRECT_SYSTEM = (
    "You answer questions about a picture. Think between <think> and </think>, then write "
    "<answer>your answer</answer>"
)


def observe(view: View, number: int, asked: str) -> tuple[MessagePart, ...]:
    """A crop with its name for further calls."""
    return (
        f"This is what you zoomed in on (observation_{number}):\n",
        view,
        f"\nThink between <think> and </think>. Zoom in further with <grounding>, on "
        f"'{ORIGINAL}' or any observation, or give the answer "
        "between <answer> and </answer>.",
    )


def parse(text: str, views: Sequence[View]) -> Action:
    """Parse a reply: the first grounding or answer counts. observation_1 is the first crop,
    observation_0 the original.
    """
    return call_or_answer(text, GROUNDING, lambda body: _read_call(body, views))


def parse_as_released(text: str, views: Sequence[View]) -> Action:
    """Parse a reply as the published rollout: the last closed grounding counts, also before an
    answer; a reply without one ends the episode.
    """
    if "</grounding>" not in text.partition("<grounding>")[2]:
        answered = ANSWER.search(text)
        return Answer(answered.group(1).strip() if answered else "")
    return attempt(
        lambda: _executed(text, views),
        lambda error: f"ERROR occurs during grounding. Error Information: {error}.\n",
    )


def write_call(box: Box, first_view: View) -> str:
    """A grounding of `box`, in fractions of the original."""
    call = {"bbox_2d": [round(corner, 4) for corner in box.corners], "source": ORIGINAL}
    return f"<grounding>{json.dumps(call)}</grounding>"


def _written(text: str) -> tuple[str, str]:
    """The texts of the box and of the source, in the one form that the rollout reads.

    Raises:
        AttributeError: another form.
    """
    ends = [found.start() for found in _END.finditer(text)]
    sources = list(_SOURCE.finditer(text, 0, ends[-1])) if ends else []
    comma = text.rfind(",", 0, sources[-1].start()) if sources else -1
    head = text.rfind(_HEAD, 0, max(comma, 0))
    if head < 0:
        raise AttributeError("'NoneType' object has no attribute 'group'")
    return text[head + len(_HEAD) : comma], text[sources[-1].end() : ends[-1]]


def _executed(text: str, views: Sequence[View]) -> Action:
    written, named = _written(text)
    box = literal(written)
    if not isinstance(box, list) or len(box) != 4:
        raise AssertionError("")
    source = _source(named, len(views))
    size = _full_size(views[source])
    cut = _truncated(box, size)
    sides = _shown_size((cut[2] - cut[0], cut[3] - cut[1]))
    tool_size(sides, RELEASED_CROP)
    return tool_crop(cut, views[source], size, sides=sides, emitted=box, source=source)


def _source(named: str, shown: int) -> int:
    numbered = re.match(r"observation_([0-9]{1,6})", named)
    if numbered is None and named != ORIGINAL:
        raise ValueError(
            f"The 'source' argument \"{named}\" does not match the pattern 'observation_([0-9]*)'."
        )
    source = int(numbered.group(1)) if numbered else 0
    if source >= shown:
        raise IndexError(f'Error in predicting the source observation: "{named}".')
    return source


def _truncated(box: Sequence[Any], size: Size) -> Corners:
    width, height = size
    x0, y0, x1, y1 = (_scaled(number, size[i % 2]) for i, number in enumerate(box))
    cut = max(x0, 0), max(y0, 0), min(x1, width - 1), min(y1, height - 1)
    for name, low, high in (("width", cut[0], cut[2]), ("height", cut[1], cut[3])):
        if low > high - 1:
            raise AssertionError(f"The bounding box is not valid in {name}: {list(cut)}")
    across = cut[2] - cut[0]
    down = cut[3] - cut[1]
    if across / down >= ASPECT or down / across >= ASPECT:
        raise ValueError(
            f"The absolute aspect ratio of the bounding box exceeds {ASPECT}, which is too large."
        )
    return cut


def _scaled(number: Any, side: int) -> int:
    if isinstance(number, str):  # Python repeats a text, which need not be long to be no integer
        side = min(side, 300 // max(len(number), 1) + 1)
    elif not isinstance(number, int | float):
        raise TypeError(
            "int() argument must be a string, a bytes-like object or a real number, not "
            f"'{type(number).__name__}'"
        )
    return int(number * side)


def _shown_size(size: Size) -> Size:
    """The size at which the rollout shows a crop."""
    width, height = size
    for limit, applies in (
        (MOST_PIXELS, width * height > MOST_PIXELS),
        (LEAST_PIXELS, width * height < LEAST_PIXELS),
    ):
        if applies:
            scale = sqrt(limit / (width * height))
            width, height = int(width * scale), int(height * scale)
    if min(width, height) < LEAST_SIDE:
        scale = LEAST_SIDE / max(min(width, height), 1)
        width, height = int(width * scale + 1), int(height * scale + 1)
    return width, height


def _full_size(view: View) -> Size:
    """Size of a view's region in pixels of the original, as the rollout keeps its crops."""
    if view.cut is not None:
        return view.cut[2] - view.cut[0], view.cut[3] - view.cut[1]
    width, height = view.original_size
    x0, y0, x1, y1 = view.region.corners
    return max(1, round(width * (x1 - x0))), max(1, round(height * (y1 - y0)))


def _is_shown_name(source: Any) -> bool:
    return source == ORIGINAL or re.fullmatch("observation_[1-9][0-9]*", source) is not None


def _read_call(body: str, views: Sequence[View]) -> Action:
    try:
        call: Any = read_json(body)
    except ValueError:
        return malformed(Reason.BAD_JSON, "The grounding is not valid JSON.")
    if not isinstance(call, dict):
        return malformed(
            Reason.BAD_BOX, 'The grounding must be {"bbox_2d": [x0, y0, x1, y1], "source": ...}.'
        )
    named = call.get("source")
    numbered = _OBSERVATION.fullmatch(named) if isinstance(named, str) else None
    if numbered is None and named != ORIGINAL:
        return malformed(Reason.BAD_SOURCE, f"source must be '{ORIGINAL}' or 'observation_i'.")
    crop = crop_of(
        four_numbers(call.get("bbox_2d")),
        FRAME,
        views,
        int(numbered.group(1)) if numbered else 0,
        exact=is_exact(body, {"bbox_2d": in_order, "source": _is_shown_name}),
    )
    return (
        crop
        if isinstance(crop, Malformed)
        else check_shape(crop, views[0].original_size, aspect=ASPECT)
    )


MINI_O3 = ChatProtocol(
    name="mini_o3",
    system=SYSTEM,
    direct_system=DIRECT_SYSTEM,
    parser=parse,
    ask=ask,
    write_call=write_call,
    thinks=True,
    observe=observe,
    observe_nothing="No picture.",
    stop=("</grounding>", "</answer>"),
    crop=CROP,
    as_released=Released(parser=parse_as_released, crop=RELEASED_CROP),
)
