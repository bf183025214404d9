"""An episode as JSON for the pages: views, replies, crops, and the filters that find it."""

from collections.abc import Mapping
from typing import Any

from lfpc.dialogue import Crop, Malformed
from lfpc.episode import Stop
from lfpc.records import EpisodeRecord, TurnRecord, terms_to_json, turn_to_json
from lfpc.report.evidence import NamedLook
from lfpc.report.pictures import PictureFiles
from lfpc.report.tables import PROBE_NAMES
from lfpc.samples import Sample

Card = dict[str, Any]
LONGEST_TEXT = 3_000
"""Maximum characters of a text on the page."""
LOW_IOU = 0.1
"""IoU below which a crop counts as one of the wrong region."""
COVERED = 0.9
"""Share of the target that a crop must contain to count as showing it."""
KINDS = {
    "wrong": "wrong",
    "right": "right",
    "fooled": "right, but wrong under noise",
    "truth-helps": "wrong, but right with the true crop",
    "malformed": "a malformed reply",
    "no-crop": "no crop shown",
    "low-iou": f"IoU below {LOW_IOU}",
    "covers": "the crop shows the target",
    "misread": "wrong although the crop shows the target",
    "early": "answered before the crop",
    "unanswered": "no answer",
    "failed": "failed",
}
"""Filters: name -> label."""


def kinds_of(
    own: EpisodeRecord, noise: EpisodeRecord | None = None, truth: EpisodeRecord | None = None
) -> tuple[str, ...]:
    """Names of the filters that find an episode."""
    right = bool(own.correct)
    wrong = own.correct is not None and not right
    covers = (own.coverage or 0) > COVERED
    found = {
        "wrong": wrong,
        "right": right,
        "fooled": right and noise is not None and not noise.correct,
        "truth-helps": not right and truth is not None and bool(truth.correct),
        "malformed": bool(own.malformed),
        "no-crop": not own.tool,
        "low-iou": own.iou is not None and own.iou < LOW_IOU,
        "covers": covers,
        "misread": wrong and covers,
        "early": bool(own.answered_before_crop),
        "unanswered": own.stop is Stop.MAX_TURNS and not own.failed,
        "failed": own.failed,
    }
    return tuple(kind for kind, holds in found.items() if holds)


def card(
    records: Mapping[str, EpisodeRecord],
    pictures: PictureFiles | None,
    shown: Mapping[str, NamedLook | None],
) -> Card:
    """One question under each probe, as one arm answered it at one budget.

    Args:
        records: records by probe, including "own".
        pictures: destination of the pictures; None: no pictures of this question.
        shown: looks by probe.
    """
    own = records["own"]
    sample = own.sample
    first = own.first_view
    return {
        "id": sample.id,
        "question": _cut(sample.question),
        "options": [_cut(option) for option in sample.options],
        "answer": None if own.correct is None else _cut(sample.answer),
        "category": sample.category,
        "truth": [list(box.corners) for nested in sample.boxes for box in nested],
        "boxes": [list(box.corners) for box in own.boxes],
        "pictures": pictures is not None,
        "original": pictures and pictures.original(sample),
        "first": pictures.first_view(sample, first) if pictures and first else None,
        "firstSize": first and list(first),
        "columns": [
            _column(probe, record, pictures, shown.get(probe)) for probe, record in records.items()
        ],
    }


def _column(
    probe: str, record: EpisodeRecord, pictures: PictureFiles | None, shown: NamedLook | None
) -> Card:
    return {
        "probe": probe,
        "label": PROBE_NAMES.get(probe, "own crops" if probe == "own" else probe),
        "correct": record.correct,
        "said": None if record.said is None else _cut(record.said),
        "stop": record.stop and record.stop.value,
        "method": record.method or None,
        "error": record.error or None,
        "facts": facts(record),
        "reward": record.reward and terms_to_json(record.reward),
        "advantage": record.advantage,
        "turns": [_turn(turn, record.sample, pictures, shown) for turn in record.turns],
    }


def facts(record: EpisodeRecord) -> dict[str, float]:
    """The numbers of an episode that are not None."""
    keys = (
        "visual_tokens",
        "n_turns",
        "iou",
        "coverage",
        "crop_area",
        "seconds",
        "step",
        "text_tokens",
    )
    found = {key: getattr(record, key) for key in keys}
    return {key: round(float(value), 4) for key, value in found.items() if value is not None}


def _turn(
    turn: TurnRecord, sample: Sample, pictures: PictureFiles | None, shown: NamedLook | None
) -> Card:
    found = turn_to_json(turn)
    action = turn.action
    box = action.box if isinstance(action, Crop) else None
    crop = pictures.crop(sample, box, shown) if pictures and box and turn.view and shown else None
    return {
        "text": _cut(turn.text),
        "kind": found["action"]["kind"],
        "box": box and list(box.corners),
        "view": found["view"],
        "crop": crop,
        "feedback": _cut(action.detail if isinstance(action, Malformed) else ""),
    }


def _cut(text: str) -> Any:
    """`text`, shortened if long, with the number of omitted characters."""
    return text if len(text) <= LONGEST_TEXT else [text[:LONGEST_TEXT], len(text) - LONGEST_TEXT]
