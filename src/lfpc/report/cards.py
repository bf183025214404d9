"""An episode as JSON for the pages: views, replies, crops, and the filters that find it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lfpc.dialogue import Crop, Malformed
from lfpc.episode import Stop
from lfpc.evaluation.use import same_answer
from lfpc.records import EpisodeRecord, TurnRecord, terms_to_json, turn_to_json
from lfpc.report.cells import PROBE_NAMES, lost_kind, probe_name
from lfpc.report.evidence import NamedLook
from lfpc.report.pictures import PictureFiles
from lfpc.samples import Sample

Card = dict[str, Any]
LONGEST_TEXT = 3_000
"""Maximum characters of a text on the page."""
LOW_IOU = 0.1
"""IoU below which a crop counts as one of the wrong region."""
COVERED = 0.9
"""Share of the target that a crop must contain to count as showing it."""
HALF = 0.5
"""Share of the target below which a crop counts as one of another region."""
UNCHANGED = "answer unchanged"
"""`answer_change` of an answer that does not depend on the crop."""
KINDS = {
    "wrong": "wrong",
    "right": "right",
    "crop": "a crop shown",
    "no-crop": "no crop shown",
    "covers": "the crop shows the target",
    "misread": "wrong although the crop shows the target",
    "low-iou": f"IoU below {LOW_IOU}",
    "early": "answered before the crop",
    "malformed": "a malformed reply",
    "unanswered": "no answer",
    "failed": "failed",
    **{
        lost_kind(
            probe
        ): f"{'wrong, but right' if probe.startswith('truth') else 'right, but wrong'} with {name}"
        for probe, name in PROBE_NAMES.items()
    },
}
"""Filters: name -> label."""


def kinds_of(
    own: EpisodeRecord, others: Mapping[str, EpisodeRecord] = MappingProxyType({})
) -> tuple[str, ...]:
    """Names of the filters that find an episode; `others` are its probes."""
    right = bool(own.correct)
    wrong = own.correct is not None and not right
    covers = (own.coverage or 0) > COVERED
    found = {
        "wrong": wrong,
        "right": right,
        "crop": bool(own.tool),
        "no-crop": not own.tool,
        "covers": covers,
        "misread": wrong and covers,
        "low-iou": own.iou is not None and own.iou < LOW_IOU,
        "early": bool(own.answered_before_crop),
        "malformed": bool(own.malformed),
        "unanswered": own.stop is Stop.MAX_TURNS and not own.failed,
        "failed": own.failed,
    }
    for probe, other in others.items():
        better = probe.startswith("truth")
        found[lost_kind(probe)] = right is not better and bool(other.correct) is better
    return tuple(kind for kind, holds in found.items() if holds and kind in KINDS)


def reason(record: EpisodeRecord) -> str:
    """Why an answer is wrong, or what a right one rests on, in a few words; "": unknown."""
    if record.failed:
        return "failed"
    if record.correct is None:
        return ""
    if record.said is None:
        return "malformed reply" if record.malformed else "no answer"
    if record.answered_before_crop:
        return "answered before cropping"
    if not record.tool:
        return "malformed call" if record.malformed else "no crop"
    if record.coverage is None:
        return ""
    pointed = (
        "pointed right"
        if record.coverage > COVERED
        else "cut off the target"
        if record.coverage > HALF
        else "pointed elsewhere"
    )
    if pointed == "pointed right":
        return f"{pointed}, read {'right' if record.correct else 'wrong'}"
    return pointed


def answer_change(own: EpisodeRecord, other: EpisodeRecord) -> str:
    """Whether the answer under a probe differs from the ordinary one."""
    same = same_answer(own, other)
    return "" if same is None else UNCHANGED if same else "answer changed"


def card(
    records: Mapping[str, EpisodeRecord],
    pictures: PictureFiles | None,
    shown: Mapping[str, NamedLook | None],
    gains: Mapping[str, float] = MappingProxyType({}),
) -> Card:
    """One question under each probe, as one arm answered it at one budget.

    Args:
        records: records by probe, including "own".
        pictures: destination of the pictures; None: no pictures of this question.
        shown: looks by probe.
        gains: nats that the own crop gained over each look; see `lfpc.evaluation.gain`.
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
            _column(probe, record, own, pictures, shown.get(probe))
            for probe, record in records.items()
        ],
        "gains": {probe_name(look): round(value, 3) for look, value in gains.items()},
    }


def _column(
    probe: str,
    record: EpisodeRecord,
    own: EpisodeRecord,
    pictures: PictureFiles | None,
    shown: NamedLook | None,
) -> Card:
    return {
        "probe": probe,
        "label": "own crops" if probe == "own" else probe_name(probe),
        "why": reason(record) if probe == "own" else answer_change(own, record),
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
