"""Records of episodes: typed data, and their lines of JSON in a run's `episodes.jsonl`.

A record has everything for pages, rescoring, probes and summaries, except pixels. A line names its
sample by id, and the run's `samples.jsonl` holds it. Verdict, boxes and IoU are computed once, with
the record. Missing values are None (no crop: no IoU).

Sizes are (width, height) in pixels, boxes fractions of the original.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from math import inf, isfinite
from pathlib import Path
from statistics import fmean
from types import NoneType
from typing import Any, get_args, get_type_hints

from lfpc.answers import answered_before_crop
from lfpc.boxes import Box, Corners, Size, coverage, target_iou
from lfpc.dialogue import Action, Answer, Crop, Malformed, Reason, Reply, Turn, crop_boxes
from lfpc.episode import Episode, Stop
from lfpc.errors import RunError
from lfpc.images import visual_tokens
from lfpc.rewards import RewardTerms
from lfpc.run_samples import run_samples
from lfpc.samples import Sample
from lfpc.storage.journal import Journal
from lfpc.storage.runs import EPISODES_FILE, RunFolder, read_run

RECORD_VERSION = 2
"""Version of a line. Version 1, of lfpc 0.1, contained the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """A turn without pixels."""

    text: str
    """The reply."""
    action: Action
    view: Size | None = None
    """Size of the shown crop; None: no crop."""
    region: Box | None = None
    """Region of the shown crop."""
    cut: Corners | None = None
    """Cut pixels of the original, xyxy."""
    tokens: int = 0
    """Tokens of the reply; 0 for a policy without tokens."""
    prompt_tokens: int | None = None
    """Tokens of the conversation before the reply, by the server's count."""
    finish: str = ""
    """The finish reason: "stop", "length", or a server's own; empty: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """The record of an episode, or of a failed question.

        {"v": 2, "sample": "q7", "first_view": [140, 140], "turns": [...], "stop": "answered",
         "said": "B", "correct": true, "method": "option", "iou": 0.41, "visual_tokens": 29, ...}

    Empty fields are left out of the line.
    """

    sample: Sample
    turns: tuple[TurnRecord, ...] = ()
    first_view: Size | None = None
    stop: Stop | None = None
    said: str | None = None
    """The final answer; None: the policy never answered."""
    correct: float | None = False
    """The verdict; for averaged draws the share of right ones; None: no reference answer."""
    method: str = ""
    """Decider of the verdict: a rule's name, "judge", "unparsed", "undecided"."""
    judge: str = ""
    """Name of the judge, if it decided."""
    undecided: str = ""
    """Reason why the judge did not decide."""
    error: str = ""
    """Reason of a failed question, which counts as wrong."""
    asked: str = ""
    """`lfpc.run_samples.sample_hashes` of the sample when it was asked; empty: unknown."""

    tool: bool | None = None
    """Whether a crop was shown."""
    calls: int | None = None
    """Number of requested boxes."""
    crops: int | None = None
    """Number of shown crops."""
    n_turns: int | None = None
    global_tokens: int | None = None
    """Visual tokens of the first view."""
    crop_tokens: int | None = None
    """Visual tokens of all crops."""
    visual_tokens: int | None = None
    """Visual tokens of first view and crops."""
    iou_first: float | None = None
    """IoU of the first crop with the best fitting nested truth box, mean over targets."""
    iou: float | None = None
    """The same for the last crop."""
    iou_best: float | None = None
    """The same with the best crop for each target."""
    coverage: float | None = None
    """Share of B_1 inside the last crop, mean over targets."""
    crop_area: float | None = None
    """Area of the last crop, as share of the picture."""
    truncated: int | None = None
    """Number of replies that the token limit ended; None: the finish reasons are unknown."""
    malformed: tuple[str, ...] = ()
    """Reason codes of malformed replies, in order."""
    answered_before_crop: bool | None = None
    """Whether the answer is in the text before the first crop; see `lfpc.answers`."""

    reward: RewardTerms | None = None
    budget: int | None = None
    """First-view budget; None: unlimited."""
    seconds: float | None = None
    """Seconds from first view to answer; in a batch, each question's share."""
    concurrency: int | None = None
    """Number of concurrent episodes; None: batches."""
    replayed: int | None = None
    """Number of replayed turns; None: not a replay."""
    step: int | None = None
    """Training step."""
    advantage: float | None = None
    """Advantage within the rollout group."""
    seed: int | None = None
    """Seed of the run in pooled results. Not written."""

    @property
    def failed(self) -> bool:
        """Whether the question failed, so there is no episode."""
        return bool(self.error)

    @property
    def score(self) -> float:
        """1 for a right answer, else 0; for averaged draws the share of right ones."""
        return float(self.correct or 0)

    @property
    def text_tokens(self) -> int | None:
        """Tokens of all replies; None for a policy without tokens."""
        return sum(turn.tokens for turn in self.turns) or None

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Every requested box, in order, but for a last turn's; see `lfpc.dialogue.crop_turns`."""
        return crop_boxes(self.turns)

    @property
    def cluster(self) -> str:
        """Cluster of dependent records: the data set's "cluster" in `meta`, else the picture."""
        return str(self.sample.meta.get("cluster") or self.sample.image)


def turn_record(turn: Turn) -> TurnRecord:
    """The record of a turn."""
    reply = turn.reply
    view = turn.view
    return TurnRecord(
        text=reply.text,
        action=turn.action,
        view=view and view.size,
        region=view and view.region,
        cut=view and view.cut,
        tokens=reply.tokens,
        prompt_tokens=reply.usage.prompt_tokens if reply.usage else None,
        finish=reply.finish,
    )


def record_of(
    episode: Episode, reward: RewardTerms | None = None, *, factor: int = 28, **more: Any
) -> EpisodeRecord:
    """The record of a finished episode.

    Args:
        episode: the episode.
        reward: its reward terms; None: none.
        factor: side of a visual token in pixels, from the protocol.
        more: further fields: seconds, budget, step, ...
    """
    boxes = episode.boxes
    targets = episode.sample.boxes
    global_tokens = visual_tokens(episode.first_view.size, factor)
    crop_tokens = sum(visual_tokens(view.size, factor) for view in episode.views[1:])
    return EpisodeRecord(
        sample=episode.sample,
        turns=tuple(map(turn_record, episode.turns)),
        first_view=episode.first_view.size,
        stop=episode.stop,
        said=episode.answer,
        correct=episode.verdict.correct,
        method=episode.verdict.method,
        tool=episode.shown_crops > 0,
        calls=len(boxes),
        crops=episode.shown_crops,
        n_turns=len(episode.turns),
        global_tokens=global_tokens,
        crop_tokens=crop_tokens,
        visual_tokens=global_tokens + crop_tokens,
        iou_first=target_iou(boxes[:1], targets),
        iou=target_iou(boxes[-1:], targets),
        iou_best=target_iou(boxes, targets),
        coverage=fmean(coverage(boxes[-1], nested[0]) for nested in targets)
        if boxes and targets
        else None,
        crop_area=boxes[-1].area if boxes else None,
        truncated=truncated_replies(turn.reply for turn in episode.turns),
        malformed=tuple(action.reason.value for action in episode.malformed),
        answered_before_crop=episode_answered_before_crop(episode),
        reward=reward,
        **more,
    )


def truncated_replies(replies: Iterable[Reply]) -> int | None:
    """Number of the replies that the token limit ended; None if no finish reason is known."""
    known = [reply.truncated for reply in replies if reply.finish]
    return sum(known) if known else None


def episode_answered_before_crop(episode: Episode) -> bool | None:
    """Whether the text before an episode's first crop holds its answer; None without a crop or an
    answer, or if undecidable. See `lfpc.answers.answered_before_crop`.
    """
    crops = [n for n, turn in enumerate(episode.turns, 1) if isinstance(turn.action, Crop)]
    before = episode.turns[: crops[0]] if crops else ()
    return answered_before_crop(
        [turn.reply.text for turn in before],
        episode.answer,
        question=episode.sample.question,
        options=episode.sample.options,
    )


def failed_record(sample: Sample, error: str, **more: Any) -> EpisodeRecord:
    """The record of a failed question."""
    return EpisodeRecord(sample=sample, error=error, **more)


# --- on disk


def log_record(run: RunFolder, key: str, record: EpisodeRecord) -> None:
    """Append a record under `key`, which identifies it within the run."""
    run.log_episode(key, record_to_json(record))


def read_records(
    run: RunFolder | Path | str, samples: Iterable[Sample] | None = None
) -> dict[str, EpisodeRecord]:
    """Records of a run by key, in the order first written; the last line of a key counts.

    Args:
        run: the run folder, or its path.
        samples: samples whose records to read; None: all samples of the run's `samples.jsonl`.
    Raises:
        RunError: a line is not a record of this version; names file and line.
    """
    if not isinstance(run, RunFolder):
        run = read_run(Path(run))
    known = {sample.id: sample for sample in (run_samples(run) if samples is None else samples)}
    found: dict[str, EpisodeRecord] = {}
    for number, row in enumerate(Journal(run.path / EPISODES_FILE).rows(), 1):
        try:
            if samples is None or row.get("sample") in known:
                found[row["key"]] = record_from_json(row, known)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            file = run.path / EPISODES_FILE
            raise RunError(
                f"{file}:{number}: not a record ({type(error).__name__}: {error}); delete the line "
                f"to have the question asked again"
            ) from error
    return found


# --- JSON


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
