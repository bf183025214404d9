"""Facts of one episode as plain numbers, and what many of them add up to: accuracy, and what it
cost.

A fact that does not exist is None (no crop: no IoU) and is left out of means; a failed question
stays in the denominator.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from lfpc.answers import check_answer
from lfpc.boxes import Box, coverage, iou
from lfpc.dialogue import Crop
from lfpc.episode import Episode
from lfpc.images import visual_tokens
from lfpc.metrics.early import answered_before_crop
from lfpc.metrics.statistics import clustered_wilson

Row = Mapping[str, Any]

_MEANS = (
    "visual_tokens",
    "global_tokens",
    "crop_tokens",
    "n_turns",
    "calls",
    "crops",
    "iou",
    "iou_first",
    "iou_best",
    "coverage",
    "seconds",
)
COSTS = (
    "visual_tokens",
    "global_tokens",
    "crop_tokens",
    "text_tokens",
    "n_turns",
    "calls",
    "seconds",
)
"""What a question costs; `summarise` gives mean, median and 95 % quantile of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long questions took when `concurrency` of them were played together."""

    concurrency: int
    questions: int
    """How many were counted."""
    median: float
    """Seconds from the first view to the answer of a question; questions that are played together
    end together."""
    p95: float
    """95 % of the questions took no longer, in seconds."""
    per_second: float
    """Questions per second: the throughput."""


def target_iou(boxes: Sequence[Box], targets: Sequence[Sequence[Box]]) -> float | None:
    """How well `boxes` hit the targets, in [0, 1]; None where there are no boxes or no targets.

        mean over targets of max over boxes B and nested truth boxes B_i of IoU(B, B_i)

    Source: rewards.grounding_reward, without its guard.
    """
    if not boxes or not targets:
        return None
    return fmean(max(iou(box, truth) for box in boxes for truth in nested) for nested in targets)


def episode_facts(episode: Episode, *, factor: int = 28) -> dict[str, Any]:
    """What evaluation keeps of an episode, as values that JSON can hold.

    Keys: correct, said, tool (a crop was really shown), calls (boxes asked for), crops (those
    shown), n_turns, global_tokens, crop_tokens, visual_tokens (their sum), iou_first, iou (of the
    last crop), iou_best, coverage (share of B_1 inside the last crop, mean over targets), crop_area
    (share of the picture, last crop), malformed (reason codes in order), answered_before_crop (see
    `lfpc.metrics.early`). The boxes themselves and the text tokens are in the row's turns.

    Args:
        episode: a finished episode.
        factor: side of a visual token in pixels, as the protocol says.
    """
    boxes = episode.boxes
    targets = episode.sample.boxes
    global_tokens = visual_tokens(episode.first_view.size, factor)
    crop_tokens = sum(visual_tokens(view.size, factor) for view in episode.views[1:])
    first_call = next(
        (n for n, turn in enumerate(episode.turns, 1) if isinstance(turn.action, Crop)), 0
    )
    covered = (
        fmean(coverage(boxes[-1], nested[0]) for nested in targets) if boxes and targets else None
    )
    return {
        "correct": check_answer(episode.answer, episode.sample).correct,
        "said": episode.answer,
        "tool": episode.shown_crops > 0,
        "calls": len(boxes),
        "crops": episode.shown_crops,
        "n_turns": len(episode.turns),
        "global_tokens": global_tokens,
        "crop_tokens": crop_tokens,
        "visual_tokens": global_tokens + crop_tokens,
        "iou_first": target_iou(boxes[:1], targets),
        "iou": target_iou(boxes[-1:], targets),
        "iou_best": target_iou(boxes, targets),
        "coverage": covered,
        "crop_area": boxes[-1].area if boxes else None,
        "malformed": [action.reason for action in episode.malformed],
        "answered_before_crop": answered_before_crop(
            [turn.reply.text for turn in episode.turns[:first_call]],
            episode.answer,
            question=episode.sample.question,
            options=episode.sample.options,
        ),
    }


def text_tokens(row: Row) -> int | None:
    """Tokens the policy wrote in the row's episode; None for a policy without tokens."""
    return sum(turn.get("tokens") or 0 for turn in row.get("turns", ())) or None


def cluster_of(row: Row) -> str:
    """What makes rows dependent: the cluster their data set names in "meta", else the picture, else
    the question.
    """
    return str((row.get("meta") or {}).get("cluster") or row.get("image") or row["sample"])


def known(rows: Sequence[Row], key: str) -> list[float]:
    """The values of `key` in those rows that have one."""
    return [float(row[key]) for row in rows if row.get(key) is not None]


def score(row: Row) -> float:
    """1 where the row's answer was right, else 0 (a failed question is not right); of averaged rows
    the share that was right.
    """
    return float(row.get("correct") or 0)


def summarise(
    rows: Sequence[Row], timings: Sequence[Timing] = (), *, by_category: bool = True
) -> dict[str, Any]:
    """Accuracy with its interval (clustered by picture), means, medians and rates of evaluation
    rows.

    Means leave out rows without the fact: `iou` is over questions with a crop, `iou_all` counts a
    missing crop as 0. "cost" holds mean, median and p95 of each of `COSTS` (None where no row has
    it), "timings" the timings that are given, "per_second" the `throughput` at "concurrency" (None:
    the questions were played in batches).

    Args:
        rows: evaluation rows.
        timings: seconds per question and throughput, measured apart from the rows.
        by_category: whether "categories" holds the same summary of each category.
    """
    rows = [
        row if "text_tokens" in row else {**row, "text_tokens": text_tokens(row)} for row in rows
    ]
    right = [score(row) for row in rows]
    summary: dict[str, Any] = {
        "n": len(rows),
        "errors": sum("error" in row for row in rows),
        "accuracy": fmean(right) if rows else None,
        "accuracy_ci": list(clustered_wilson(right, [cluster_of(row) for row in rows])),
        "tool_rate": fmean(bool(row.get("tool")) for row in rows) if rows else None,
        "iou_all": _iou_all(rows),
        "crop_area": median(areas) if (areas := known(rows, "crop_area")) else None,
        "answered_before_crop": fmean(early)
        if (early := known(rows, "answered_before_crop"))
        else None,
        "malformed": dict(Counter(reason for row in rows for reason in row.get("malformed", ()))),
        "decided_by": dict(Counter(row.get("method", "error") for row in rows)),
    }
    for key in _MEANS:
        summary[key] = fmean(values) if (values := known(rows, key)) else None
    summary["cost"] = {key: _spread(known(rows, key)) for key in COSTS}
    summary["concurrency"] = max(known(rows, "concurrency"), default=None)
    summary["per_second"] = throughput(rows)
    summary["timings"] = [asdict(timing) for timing in timings]
    if by_category:
        groups: defaultdict[str, list[Row]] = defaultdict(list)
        for row in rows:
            groups[str(row.get("category", ""))].append(row)
        summary["categories"] = {
            name: summarise(group, by_category=False) for name, group in sorted(groups.items())
        }
    return summary


def throughput(rows: Sequence[Row]) -> float | None:
    """Questions per second while the rows were made; None where none has seconds.

        concurrency / mean seconds

    The seconds of a batch are already shared out to its questions, so there the concurrency is 1.
    Source: Little 1961.
    """
    timed = [row for row in rows if row.get("seconds")]
    return (
        fmean(row.get("concurrency", 1) for row in timed) / fmean(row["seconds"] for row in timed)
        if timed
        else None
    )


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    middle, high = np.quantile(values, (0.5, 0.95))
    return {"mean": fmean(values), "median": float(middle), "p95": float(high)}


def _iou_all(rows: Sequence[Row]) -> float | None:
    """Mean IoU of the last crop over rows with a truth box; a question without a crop counts as
    0.
    """
    boxed = [row for row in rows if row.get("boxes")]
    return fmean(row.get("iou") or 0.0 for row in boxed) if boxed else None
