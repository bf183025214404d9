"""Records as JSON, a line of a run's `episodes.jsonl` each."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from math import inf, isfinite
from types import NoneType
from typing import Any, get_args, get_type_hints

from lfpc.boxes import Box
from lfpc.dialogue import Action, Answer, Crop, Malformed, Reason
from lfpc.episode import Stop
from lfpc.records.episodes import EpisodeRecord, TurnRecord
from lfpc.rewards import RewardTerms
from lfpc.samples import Sample

RECORD_VERSION = 2
"""Version of a line. Version 1, of lfpc 0.1, contained the sample."""


def turn_to_json(turn: TurnRecord) -> dict[str, Any]:
    """A turn as JSON of `episodes.jsonl` and of the web pages."""
    row: dict[str, Any] = {
        "text": turn.text,
        "action": _action_to_json(turn.action),
        "view": turn.view and list(turn.view),
        "region": turn.region and list(turn.region.corners),
        "cut": turn.cut and list(turn.cut),
        "tokens": turn.tokens,
    }
    if turn.prompt_tokens is not None:
        row["prompt_tokens"] = turn.prompt_tokens
    if turn.finish:
        row["finish"] = turn.finish
    return row


def _action_to_json(action: Action) -> dict[str, Any]:
    match action:
        case Crop():
            return {
                "kind": "crop",
                "box": list(action.box.corners),
                "emitted": list(action.emitted),
                "source": action.source,
            }
        case Answer(text):
            return {"kind": "answer", "text": text}
        case Malformed(reason, detail):
            return {"kind": "malformed", "reason": reason.value, "detail": detail}


def record_to_json(record: EpisodeRecord) -> dict[str, Any]:
    """A record as JSON; the inverse of `record_from_json`."""
    row: dict[str, Any] = {"v": RECORD_VERSION, "sample": record.sample.id}
    for name, write in _FIELDS.items():
        value = getattr(record, name)
        if value not in (None, "", ()):
            row[name] = write(value)
    if record.correct is None:
        row["correct"] = None
    return row


def record_from_json(row: Mapping[str, Any], samples: Mapping[str, Sample]) -> EpisodeRecord:
    """The record in a line of JSON.

    Args:
        row: the parsed line.
        samples: the run's samples by id.
    Raises:
        ValueError: another version, an unknown sample, a wrong value, or an unknown field.
    """
    if row.get("v") != RECORD_VERSION:
        raise ValueError(f"a record of version {row.get('v', 1)}; this is version {RECORD_VERSION}")
    name = row["sample"]
    if name not in samples:
        raise ValueError(f"no sample {name!r} among the run's samples")
    known = {key: value for key, value in row.items() if key not in ("v", "key", "sample")}
    return EpisodeRecord(
        sample=samples[name],
        **{key: _READERS.get(key, partial(_plain, key))(value) for key, value in known.items()},
    )


def _turn_from_json(row: Mapping[str, Any]) -> TurnRecord:
    region = row.get("region")
    return TurnRecord(
        text=_typed("text", row["text"], str),
        action=_action_from_json(row["action"]),
        view=_whole_numbers("view", row.get("view"), 2),
        region=region and Box(*region),
        cut=_whole_numbers("cut", row.get("cut"), 4),
        tokens=_typed("tokens", row.get("tokens", 0), int),
        prompt_tokens=_typed("prompt_tokens", row.get("prompt_tokens"), int, NoneType),
        finish=_typed("finish", row.get("finish", ""), str),
    )


def _action_from_json(row: Mapping[str, Any]) -> Action:
    match row["kind"]:
        case "crop":
            emitted = tuple(_typed("emitted", n, int, float) for n in row.get("emitted", ()))
            source = _typed("source", row.get("source", 0), int)
            return Crop(Box(*row["box"]), emitted=emitted, source=source)
        case "answer":
            return Answer(_typed("text", row["text"], str))
        case "malformed":
            return Malformed(Reason(row["reason"]), _typed("detail", row["detail"], str))
        case kind:
            raise ValueError(f"an action is a crop, an answer or malformed, not {kind!r}")


def _typed(name: str, value: Any, *types: type) -> Any:
    """`value`, which is of one of these types; true, false and NaN are no numbers."""
    known = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    if known and not (isinstance(value, float) and not isfinite(value)):
        return value
    needs = " or ".join("null" if one is NoneType else one.__name__ for one in types)
    raise ValueError(f"{name!r} needs {needs}, got {value!r:.60}")


def _whole_numbers(name: str, value: Any, count: int) -> Any:
    """`count` whole numbers; None stays None."""
    if value is None:
        return None
    if len(value) != count:
        raise ValueError(f"{name!r} needs {count} numbers, got {value!r:.60}")
    return tuple(_typed(name, number, int) for number in value)


def _plain(name: str, value: Any) -> Any:
    """The value of a field that is written as it is: no number but the advantage is negative, and
    verdicts and shares are at most 1.
    """
    if name in _TYPES:
        value = _typed(name, value, *_TYPES[name])
    if isinstance(value, int | float) and name != "advantage":
        highest = 1.0 if name in _SHARES else inf
        if not 0 <= value <= highest:
            raise ValueError(f"{name!r} needs a number from 0 to {highest:g}, got {value!r:.60}")
    return value


def terms_to_json(terms: RewardTerms) -> dict[str, float]:
    """Reward terms by name, with their total."""
    return {field.name: getattr(terms, field.name) for field in fields(terms)} | {
        "total": terms.total
    }


def _terms_from_json(row: Mapping[str, float]) -> RewardTerms:
    terms = {key: value for key, value in row.items() if key != "total"}
    return RewardTerms(**{key: _typed(key, value, int, float) for key, value in terms.items()})


def _same(value: Any) -> Any:
    return value


_SHARES = ("correct", "iou_first", "iou", "iou_best", "coverage", "crop_area")
_NOT_WRITTEN = ("sample", "seed")
_WRITERS: Mapping[str, Callable[[Any], Any]] = {
    "turns": lambda turns: [turn_to_json(turn) for turn in turns],
    "first_view": list,
    "stop": lambda stop: stop.value,
    "malformed": list,
    "reward": terms_to_json,
}
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "turns": lambda rows: tuple(map(_turn_from_json, rows)),
    "first_view": lambda size: _whole_numbers("first_view", size, 2),
    "stop": Stop,
    "malformed": lambda reasons: tuple(_typed("malformed", one, str) for one in reasons),
    "reward": _terms_from_json,
}
_FIELDS: Mapping[str, Callable[[Any], Any]] = {
    field.name: _WRITERS.get(field.name, _same)
    for field in fields(EpisodeRecord)
    if field.name not in _NOT_WRITTEN
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    name: (*(get_args(hint) or (hint,)), *((int, bool) if float in get_args(hint) else ()))
    for name, hint in get_type_hints(EpisodeRecord).items()
    if name not in _READERS and name != "sample"
}
"""Types of the fields that are written as they are."""
