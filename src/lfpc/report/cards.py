"""An episode as the pages show it, as plain JSON: its views, each reply, what came back, and which
filters find it.
"""

from collections.abc import Mapping
from typing import Any

from lfpc.boxes import Box
from lfpc.metrics.episodes import text_tokens
from lfpc.report.evidence import NamedLook
from lfpc.report.pictures import PictureFiles
from lfpc.report.tables import PROBE_NAMES
from lfpc.samples import Sample

Row = Mapping[str, Any]
Card = dict[str, Any]
LONGEST_TEXT = 3_000
"""Characters of a text that the page shows."""
LOW_IOU = 0.1
"""Below this a crop counts as one of the wrong thing."""
COVERED = 0.9
"""Share of the target that a crop has to contain to count as one of it."""
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
"""What the filters find, and how they are called."""


def kinds_of(own: Row, noise: Row | None = None, truth: Row | None = None) -> tuple[str, ...]:
    """Names of the filters that find an episode."""
    right = bool(own.get("correct"))
    known = own.get("correct") is not None
    malformed = own.get("malformed") or [
        turn for turn in own.get("turns", ()) if turn["action"]["kind"] == "malformed"
    ]
    iou = own.get("iou")
    covers = (own.get("coverage") or 0) > COVERED
    found = {
        "wrong": known and not right,
        "right": right,
        "fooled": right and noise is not None and not noise.get("correct"),
        "truth-helps": not right and truth is not None and bool(truth.get("correct")),
        "malformed": bool(malformed),
        "no-crop": not shows_crop(own),
        "low-iou": iou is not None and iou < LOW_IOU,
        "covers": covers,
        "misread": known and not right and covers,
        "early": bool(own.get("answered_before_crop")),
        "unanswered": "error" not in own and own.get("stop") not in (None, "answered"),
        "failed": "error" in own,
    }
    return tuple(kind for kind, holds in found.items() if holds)


def shows_crop(row: Row) -> bool:
    """Whether a crop came back in the episode."""
    return bool(row.get("tool")) or any(turn.get("view") for turn in row.get("turns", ()))


def entry(
    sample: Sample,
    rows: Mapping[str, Row],
    pictures: PictureFiles | None,
    shown: Mapping[str, NamedLook | None],
) -> Card:
    """One question as one arm answered it at one budget, under each probe.

    Args:
        sample: the question.
        rows: its row by probe; "own" is there.
        pictures: where pictures go; None: this question's pictures are left out.
        shown: what each probe showed.
    """
    own = rows["own"]
    boxes = [turn["action"]["box"] for turn in own["turns"] if "box" in turn["action"]]
    return {
        "id": sample.id,
        "question": _cut(sample.question),
        "options": [_cut(option) for option in sample.options],
        "answer": None if own.get("correct") is None else _cut(sample.answer),
        "category": sample.category,
        "truth": [list(box.corners) for nested in sample.boxes for box in nested],
        "boxes": boxes,
        "pictures": pictures is not None,
        "original": pictures and pictures.original(sample),
        "first": pictures.first_view(sample, own["first_view"])
        if pictures and "first_view" in own
        else None,
        "firstSize": own.get("first_view"),
        "columns": [
            _column(probe, row, sample, pictures, shown.get(probe)) for probe, row in rows.items()
        ],
    }


def _column(
    probe: str, row: Row, sample: Sample, pictures: PictureFiles | None, shown: NamedLook | None
) -> Card:
    return {
        "probe": probe,
        "label": PROBE_NAMES.get(probe, "own crops" if probe == "own" else probe),
        "correct": row.get("correct"),
        "said": None if row.get("said") is None else _cut(str(row["said"])),
        "stop": row.get("stop"),
        "method": row.get("method"),
        "error": row.get("error"),
        "facts": facts(row),
        "reward": row.get("reward"),
        "advantage": row.get("advantage"),
        "turns": [_turn(turn, sample, probe, pictures, shown) for turn in row["turns"]],
    }


def facts(row: Row) -> dict[str, float]:
    """The numbers of an episode that are known."""
    keys = ("visual_tokens", "n_turns", "iou", "coverage", "crop_area", "seconds", "step")
    found = {key: row.get(key) for key in keys} | {"text_tokens": text_tokens(row)}
    return {key: round(float(value), 4) for key, value in found.items() if value is not None}


def _turn(
    turn: Row, sample: Sample, probe: str, pictures: PictureFiles | None, shown: NamedLook | None
) -> Card:
    action = turn["action"]
    box = action.get("box")
    crop = (
        pictures.crop(sample, Box(*box), shown)
        if pictures and box and turn["view"] and shown
        else None
    )
    return {
        "text": _cut(turn["text"]),
        "kind": action["kind"],
        "box": box,
        "view": turn.get("view"),
        "crop": crop,
        "told": _cut(action.get("detail", "")),
    }


def _cut(text: str) -> Any:
    """`text`, or of a long one its beginning and how many characters follow."""
    return text if len(text) <= LONGEST_TEXT else [text[:LONGEST_TEXT], len(text) - LONGEST_TEXT]
