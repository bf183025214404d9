"""Mini-o3: a box in fractions of a named picture, so a crop may be cut from a crop."""

import json
import re
from collections.abc import Sequence
from typing import Any

from lfpc.boxes import Box
from lfpc.dialogue import Action, Malformed, Reason
from lfpc.images import CropRules, View
from lfpc.protocols.base import ChatProtocol, MessagePart
from lfpc.protocols.reading import (
    ask,
    call_or_answer,
    check_shape,
    crop_of,
    four_numbers,
    malformed,
    read_json,
)

GROUNDING = re.compile(r"<grounding>(.*?)(?:</grounding>|\Z)", re.DOTALL)
ORIGINAL = "original_image"
FRAME = (1, 1)
ASPECT = 200
"""Maximum aspect ratio of a box."""

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


def write_call(box: Box, first_view: View) -> str:
    """A grounding of `box`, in fractions of the original."""
    call = {"bbox_2d": [round(corner, 4) for corner in box.corners], "source": ORIGINAL}
    return f"<grounding>{json.dumps(call)}</grounding>"


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
        four_numbers(call.get("bbox_2d")), FRAME, views, int(numbered.group(1)) if numbered else 0
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
    observe=observe,
    observe_nothing="No picture.",
    stop=("</grounding>", "</answer>"),
    crop=CropRules(min_tokens=52, max_tokens=2551),  # 40,000 to 2,000,000 pixels
)
