"""Search by confidence: what any model with log-probabilities can do in place of its own crops.

The recorded replies are played again up to the first call. In place of the crop the model is shown
one tile of overlapping grids over the picture, and answers; then another. The search's answer is
the one that the model is surest of:

    surest = argmax over tiles of log p(what was said after the tile)

normalised over the options, or per token of a free answer, without any reasoning before it. It
needs neither training nor boxes, and pays for every tile. ZoomEye (arXiv 2411.16044) asks the model
whether a region suffices, which not every model can answer.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from lfpc.answers.options import named_option
from lfpc.boxes import Box
from lfpc.errors import ConfigError, PictureError
from lfpc.evaluation.gain import Readout, last_context, new_readouts, readouts, scoring_policy
from lfpc.evaluation.places import Evaluation
from lfpc.evaluation.replacing import (
    Cropped,
    Key,
    Replacing,
    by_rule,
    holds_truth,
    mean_of,
    results_in_place,
    row_in_place,
)
from lfpc.looks import fixed_look, original_look
from lfpc.policies.backends import Backend
from lfpc.policies.config import ModelPolicy, ScoringPolicy
from lfpc.records import EpisodeRecord
from lfpc.samples import LETTERS
from lfpc.storage.files import write_json
from lfpc.storage.runs import Kind

SEARCH_FOLDER = "search"
SEARCH_FILE = "search.json"
GRIDS = (2, 3)
"""Grids of `lfpc probe --search` by default: 13 tiles."""
LARGEST_GRID = 100
"""10,000 tiles a question."""
OVERLAP = 0.25
"""Share of a tile's side that it has in common with its neighbour."""
ALL = "all"
"""Name of the search over the tiles of several grids."""


@dataclass(frozen=True, slots=True)
class Tried:
    """The answer to a question after one tile."""

    record: EpisodeRecord
    sure: float
    """Log-probability of what was said, see above; -inf: nothing readable."""
    holds: bool | None
    """Whether the tile has every truth box (the tightest) inside; None: there are none."""


def tiles(grid: int) -> dict[str, Box]:
    """The tiles of a `grid` x `grid` grid over the picture, by name ("3x3-0"), row by row.

        side = 1 / (1 + (grid - 1) (1 - OVERLAP)),   in fractions of width and height

    Neighbours share OVERLAP of a side, so that a detail of up to this size is whole in one tile.
    """
    side = 1 / (1 + (grid - 1) * (1 - OVERLAP))
    starts = [n * (1 - side) / max(1, grid - 1) for n in range(grid)]
    places = [(x, y) for y in starts for x in starts]
    return {
        f"{grid}x{grid}-{n}": Box(x, y, min(1.0, x + side), min(1.0, y + side))
        for n, (x, y) in enumerate(places)
    }


def search(
    place: Path,
    grids: Sequence[int] = GRIDS,
    *,
    policy: ModelPolicy | None = None,
    backend: Backend = None,
    batch: int = 32,
    progress: bool = True,
) -> dict[str, Any]:
    """Search the pictures of a recorded evaluation for each question with a crop. Answers and their
    log-probabilities go to `place`/search, and are not asked again; the summary to
    `place`/search.json.

    Args:
        place: an evaluation, or the folder of one with its probes.
        grids: tiles per side of each grid, see `tiles`.
        policy: the recorded model; None: it is loaded, or asked at `backend`.
        backend: what computes; None: transformers in this process.
        batch: answers per batch whose log-probabilities are read.
        progress: whether to show progress bars, or lines without a terminal.
    Returns:
        See `search_results`.
    Raises:
        NoCropError: no question has a crop.
        RunError: `place` holds no evaluation, or its samples or model have changed.
        ConfigError: a grid outside 1 to `LARGEST_GRID`.
        ConfigError, PolicyError: the backend gives no log-probabilities of given texts.
    """
    if wrong := [grid for grid in grids if not 1 <= grid <= LARGEST_GRID]:
        raise ConfigError(f"--search must be from 1 to {LARGEST_GRID}, got {wrong[0]}")
    cropped = Cropped.of(place, Kind.SEARCH, policy, backend)
    scoring = scoring_policy(cropped.policy, "--search")
    boxes = {name: box for grid in grids for name, box in tiles(grid).items()}
    config = cropped.recorded.config
    looks = {name: fixed_look(config.crop_rules, box) for name, box in boxes.items()}
    folder = place / SEARCH_FOLDER
    with (
        cropped.open_run(folder / "answers") as answers,
        cropped.open_run(folder / "logprobs") as logprobs,
        getattr(cropped.policy, "cached_views", nullcontext)(),
    ):
        replacing = Replacing(cropped, list(boxes), lambda key: boxes[key[1]], answers)
        if replacing.todo:
            _check_logprobs(scoring, cropped.records[0], cropped.recorded)
        records = replacing.answers("search", progress=progress)
        known = readouts(logprobs, [one.sample for one in cropped.records])
        known |= new_readouts(
            scoring,
            [
                (replace(one, sample=replace(one.sample, answer=said)), key[1])
                for key, one in records.items()
                if key not in known and (said := _said(one))
            ],
            looks,
            cropped.recorded,
            logprobs,
            batch=batch,
            label="confidence",
            already=len(records.keys() & known.keys()),
            progress=progress,
        )
    tried = {
        key: Tried(
            by_rule(record), _sure(known.get(key)), holds_truth(boxes[key[1]], record.sample)
        )
        for key, record in records.items()
    }
    results = search_results(cropped, tried, list(boxes))
    write_json(place / SEARCH_FILE, results)
    return results


def _check_logprobs(policy: ScoringPolicy, record: EpisodeRecord, recorded: Evaluation) -> None:
    """Read a log-probability, so that a server without them says so before it is asked all."""
    with suppress(PictureError):
        context = last_context(record, original_look(recorded.config.crop_rules), recorded)
        policy.answer_logprobs([context], [["A"]])


def _said(record: EpisodeRecord) -> str | None:
    """What an episode answered: the letter of its option, or the text; None: nothing readable."""
    sample = record.sample
    if record.failed or not record.said or not sample.options:
        return record.said
    named = named_option(record.said, sample.options, sample.question)
    return None if named is None else LETTERS[named]


def search_results(
    cropped: Cropped, tried: Mapping[Key, Tried], names: Sequence[str]
) -> dict[str, Any]:
    """The summary of a search. Verdicts are by rule on both sides, without a judge.

    Args:
        cropped: the questions.
        tried: answers by (sample id, tile).
        names: the tiles.
    Returns:
        See `results_in_place`, with a row in "grids" for each grid, and for all of several; see
        `_row`.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.partition("-")[0]].append(name)
    if len(groups) > 1:
        groups[ALL] = list(names)
    rows = {
        grid: _row(
            cropped,
            [[tried[record.sample.id, name] for name in some] for record in cropped.records],
        )
        for grid, some in groups.items()
    }
    return results_in_place(cropped, rows, "grids")


def search_rows(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows of `search_results` by their words."""
    return {f"{name}: {row['tiles']} tiles": row for name, row in results["grids"].items()}


def _row(cropped: Cropped, tried: Sequence[Sequence[Tried]]) -> dict[str, Any]:
    """A search over the tiles `tried` of each question.

    Returns:
        "tiles": their number; see `row_in_place`, of the first view and every tile, where a
        question with a failed tile is failed; and of the questions without one, "best": accuracy
        of the best tile in hindsight, "holds_truth": share of chosen tiles that hold the truth,
        "random" and "random_holds_truth": the same of a tile at random.
    """
    whole = [some for some in tried if not any(one.record.failed for one in some)]
    every = [one for some in whole for one in some]
    return {
        "tiles": len(tried[0]),
        **row_in_place(cropped, [_searched(some) for some in tried]),
        "best": mean_of(max(one.record.score for one in some) for some in whole),
        "random": mean_of(one.record.score for one in every),
        "holds_truth": mean_of(_surest(some).holds for some in whole),
        "random_holds_truth": mean_of(one.holds for one in every),
    }


def _surest(tried: Sequence[Tried]) -> Tried:
    return max(tried, key=lambda one: one.sure)


def _searched(tried: Sequence[Tried]) -> EpisodeRecord:
    """The record of a question: the surest answer at the cost of all tiles; failed if one is."""
    surest = _surest(tried).record
    tokens = (surest.global_tokens or 0) + sum(one.record.crop_tokens or 0 for one in tried)
    error = next((one.record.error for one in tried if one.record.failed), "")
    correct = surest.correct and not error
    return replace(surest, visual_tokens=tokens, error=error, correct=correct)


def _sure(readout: Readout | None) -> float:
    if readout is None:
        return -inf
    return readout.logprob / (1 if readout.options else max(1, readout.tokens))
