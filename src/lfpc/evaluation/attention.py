"""A crop by the model's own attention, in place of the one that it asked for.

The window of the first view that the model attends to most is cut from the original, without
training. Three maps are read in one layer:

    question   attention of the question's tokens, their mean
    answer     attention where the answer begins
    relative   answer / the same for a question that asks for nothing in particular

`relative` and the choice among window sizes are those of ViCrop ("MLLMs know where to look", arXiv
2502.17422).
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from lfpc.boxes import Box
from lfpc.dialogue import Context
from lfpc.errors import ConfigError
from lfpc.evaluation.opened import first_view
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
from lfpc.playing.progress import progress_bar
from lfpc.policies.backends import Backend
from lfpc.policies.config import AttendingPolicy, ModelPolicy
from lfpc.records import EpisodeRecord
from lfpc.storage.files import write_json
from lfpc.storage.runs import Kind

ATTENTION_FOLDER = "attention"
ATTENTION_FILE = "attention.json"
MAPS = {
    "question": "the question's tokens",
    "answer": "the answer's place",
    "relative": "the answer's place, relative",
}
"""The maps, see above, and their words."""
RELATIVE = "relative"
LAYER = 23 / 36
"""Layer by default, as share of the layers: the published script's for Qwen2.5-VL-3B, of 36."""
GENERAL = "Write a general description of the image."
"""The question that asks for nothing in particular, from the paper."""
SIDES = (1 / 5, 1 / 3, 1 / 2)
"""Sides of the windows, as shares of the view's."""


def attend(
    place: Path,
    layers: Sequence[int] = (),
    *,
    policy: ModelPolicy | None = None,
    backend: Backend = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Show each question with a crop of a recorded evaluation the windows of the model's attention
    in its place. Answers go to `place`/attention, and are not asked again; the summary to
    `place`/attention.json.

    Args:
        place: an evaluation, or the folder of one with its probes.
        layers: layers of the language model to read, from 1; empty: one, see `LAYER`.
        policy: the recorded model; None: it is loaded.
        backend: what computes; None: transformers in this process.
        progress: whether to show progress bars, or lines without a terminal.
    Returns:
        See `attention_results`.
    Raises:
        NoCropError: no question has a crop.
        RunError: `place` holds no evaluation, or its samples or model have changed.
        ConfigError: the backend gives no attention; a layer that the model does not have.
    """
    cropped = Cropped.of(place, Kind.ATTENTION, policy, backend)
    attending = cropped.policy
    if not isinstance(attending, AttendingPolicy):
        raise ConfigError(
            "--attention reads the model's attention, which only a Qwen2.5-VL or Qwen3-VL "
            "checkpoint on one device in this process gives; use a run of one, without --engine "
            "and --base-url"
        )
    layers = layers or (max(1, round(LAYER * attending.depth)),)
    if wrong := [layer for layer in layers if not 1 <= layer <= attending.depth]:
        raise ConfigError(
            f"--attention must be from 1 to {attending.depth}, the layers of "
            f"{cropped.recorded.config.model}, got {wrong[0]}"
        )
    names = [f"{name}-{layer}" for layer in dict.fromkeys(layers) for name in MAPS]
    windows: dict[Key, Box | Exception] = {}

    def region(key: Key) -> Box:
        found = windows[key]
        if isinstance(found, Exception):
            raise found
        return found

    with (
        cropped.open_run(place / ATTENTION_FOLDER) as run,
        getattr(attending, "cached_views", nullcontext)(),
    ):
        replacing = Replacing(cropped, names, region, run)
        todo = replacing.todo
        with progress_bar(len(todo), 0, "attention", unit="question", shown=progress) as advance:
            for record in todo:
                windows |= _windows(attending, record, cropped, list(dict.fromkeys(layers)))
                advance(1)
        found = replacing.answers("answers", progress=progress)
    results = attention_results(cropped, found, names)
    write_json(place / ATTENTION_FILE, results)
    return results


def _windows(
    policy: AttendingPolicy, record: EpisodeRecord, cropped: Cropped, layers: Sequence[int]
) -> Mapping[Key, Box | Exception]:
    """The windows of a question, or the reason why it has none."""
    sample, config = record.sample, cropped.recorded.config
    keys = [(sample.id, f"{name}-{layer}") for layer in layers for name in MAPS]
    try:
        view = first_view(sample, config.budget, factor=config.chat.factor)
        asked = Context(sample.question, sample.options, view, (), key=sample.id)
        own, general = policy.view_attention(
            [asked, replace(asked, question=GENERAL, options=())], layers
        )
    except Exception as error:  # as in the driver: it fails this question, and no other
        return dict.fromkeys(keys, error)
    relative = own.answer / np.maximum(general.answer, np.finfo(np.float32).tiny)
    maps = np.stack([own.question, own.answer, relative], axis=1)
    return dict(zip(keys, map(window, maps.reshape(-1, *maps.shape[2:])), strict=True))


def window(weights: np.ndarray, sides: Sequence[float] = SIDES) -> Box:
    """The window of a view with the most attention. Of several sizes the sharpest counts, whose
    attention falls most if it is moved by a token.

        sharpness = (sum in the window - mean of the sums one token beside it) / tokens in it

    Args:
        weights: (rows, columns) attention to the view's tokens, each >= 0.
        sides: width and height of the windows, as shares of the view's; at least one token.
    Returns:
        The window; the whole view if no window is smaller.
    Source: ViCrop, arXiv 2502.17422, whose windows are squares of pixels of the original.
    """
    rows, columns = weights.shape
    sums = np.zeros((rows + 1, columns + 1))
    sums[1:, 1:] = weights.cumsum(0, dtype=float).cumsum(1)
    best, box = -inf, Box(0.0, 0.0, 1.0, 1.0)
    for side in sides:
        height, width = (max(1, round(side * count)) for count in (rows, columns))
        inside = (
            sums[height:, width:]
            - sums[:-height, width:]
            - sums[height:, :-width]
            + sums[:-height, :-width]
        )
        y, x = map(int, np.unravel_index(inside.argmax(), inside.shape))
        places = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        near = [
            inside[place]
            for place in places
            if 0 <= place[0] < inside.shape[0] and 0 <= place[1] < inside.shape[1]
        ]
        sharp = (inside[y, x] - np.mean(near)) / (height * width) if near else -inf
        if sharp > best:
            best = sharp
            box = Box(x / columns, y / rows, (x + width) / columns, (y + height) / rows)
    return box


def attention_results(
    cropped: Cropped, found: Mapping[Key, EpisodeRecord], names: Sequence[str]
) -> dict[str, Any]:
    """The summary of attention's crops. Verdicts are by rule on both sides, without a judge.

    Args:
        cropped: the questions.
        found: answers by (sample id, map and layer).
        names: maps and layers.
    Returns:
        See `results_in_place`, with a row in "maps" for each map and layer; in it further "area":
        mean of the windows, as share of the picture; "holds_truth": share of windows that hold the
        truth.
    """
    rows = {
        name: _row(cropped, [found[record.sample.id, name] for record in cropped.records], name)
        for name in names
    }
    return results_in_place(cropped, rows, "maps")


def attention_rows(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows of `attention_results` by their words."""
    named = {tuple(key.split("-")): row for key, row in results["maps"].items()}
    return {f"{MAPS[name]}, layer {layer}": row for (name, layer), row in named.items()}


def _row(cropped: Cropped, found: Sequence[EpisodeRecord], name: str) -> dict[str, Any]:
    shown = [(_region(record), record.sample) for record in found]
    windows = [(box, sample) for box, sample in shown if box is not None]
    return {
        **row_in_place(cropped, [_with_cost(by_rule(record), name) for record in found]),
        "area": mean_of(box.area for box, _ in windows),
        "holds_truth": mean_of(holds_truth(box, sample) for box, sample in windows),
    }


def _with_cost(record: EpisodeRecord, name: str) -> EpisodeRecord:
    """The record with its visual tokens; the other question of `relative` has its own view."""
    twice = record.global_tokens if name.startswith(RELATIVE) else 0
    return replace(record, visual_tokens=(record.visual_tokens or 0) + (twice or 0))


def _region(record: EpisodeRecord) -> Box | None:
    """The region shown for the first call; None: the question failed."""
    return next((turn.region for turn in record.turns if turn.region is not None), None)
