"""What the same work would take at best: the least work of each kind times its lowest cost here.

    one decode per original, one resize and one pass of the vision tower per distinct view, one
    forward pass per token of each distinct prompt and per sampled token; in an update three passes
    (forward, and backward with twice its operations) per distinct view and token

Costs are measured beside the benchmark, on the same machine and threads, each the lowest of some
batch sizes, without padding, mask, bookkeeping or optimiser.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image

from bench.profile_step import least_work
from lfpc.boxes import Size
from lfpc.dialogue import Context, Reply
from lfpc.episode import Episode
from lfpc.images import View, open_picture
from lfpc.policies.qwen.encode import Encoded
from lfpc.policies.qwen.language import KeyValues, Read, prefix_key, read
from lfpc.policies.qwen.sampling import _step
from lfpc.policies.transformers import TransformersPolicy
from lfpc.samples import Sample
from lfpc.training.groups import Group, episodes_of
from lfpc.training.rollouts import Rollout

T = TypeVar("T")
Clock = Callable[[], float]
BATCHES = (8, 32, 128)
PASSES = 3
"""Forward passes that an update costs: the backward pass has twice the operations of a forward."""
TOKENS = 6
"""Tokens that are sampled to measure the cost of one."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Lowest seconds of a unit of work."""

    view: float
    """Mean of the views at hand: prepared and passed through the tower."""
    read: float
    """A token of a prompt through the language model."""
    token: float
    """A sampled token through the language model and its output layer."""


def step_limit(
    policy: TransformersPolicy, groups: Sequence[Group], rollouts: Sequence[Rollout]
) -> float:
    """Seconds of a training step at best.

    Args:
        policy: the trained policy.
        groups, rollouts: what the step played.
    """
    views = views_by_file(episodes_of(groups))
    costs = costs_of(policy, list(chain(*views.values())), [one.encoded for one in rollouts])
    return picture_seconds(views) + model_seconds(least_work(groups, rollouts), costs)


def asking_seconds(
    policy: TransformersPolicy, samples: Iterable[Sample], asked: Mapping[Context, Reply]
) -> float:
    """Seconds at best of replies to first prompts about some samples: each original decoded once,
    each distinct view and prompt read once.
    """
    files = {sample.id: sample.image for sample in samples}
    views: defaultdict[Path, dict[int, View]] = defaultdict(dict)
    for context in asked:
        views[files[context.key]][id(context.first_view.image)] = context.first_view
    rows = [policy.encoder.context(context) for context in asked]
    shown = {file: list(some.values()) for file, some in views.items()}
    costs = costs_of(policy, list(chain(*shown.values())), rows)
    prompts = {prefix_key(row): len(row.ids) for row in rows}
    further = sum(len(reply.token_ids) - 1 for reply in asked.values())
    return picture_seconds(shown) + (
        costs.view * sum(map(len, shown.values()))
        + costs.read * sum(prompts.values())
        + costs.token * further
    )


def model_seconds(least: Mapping[str, float], costs: Costs) -> float:
    """Seconds of the units in `least`, as `least_work` names them."""
    return (
        costs.view * (least["tower"] + PASSES * least["tower, update"])
        + costs.read * (least["read"] + PASSES * least["read, update"])
        + costs.token * least["token"]
    )


def picture_seconds(
    views: Mapping[Path, Iterable[View]], clock: Clock = time.perf_counter
) -> float:
    """Seconds to decode each file once, and to make each of its views by one resize."""
    total = 0.0
    for file, some in views.items():
        began = clock()
        picture = open_picture.__wrapped__(file)
        for view in some:
            picture.resize(view.size, Image.Resampling.BICUBIC, box=view.cut)
        total += clock() - began
    return total


def views_by_file(episodes: Iterable[Episode]) -> dict[Path, list[View]]:
    """The views with pixels of their own, by the file that they were made of."""
    found: defaultdict[Path, dict[int, View]] = defaultdict(dict)
    for episode in episodes:
        found[episode.sample.image].update({id(view.image): view for view in episode.views})
    return {file: list(some.values()) for file, some in found.items()}


@torch.no_grad()
def costs_of(
    policy: TransformersPolicy,
    views: Sequence[View],
    rows: Sequence[Encoded],
    clock: Clock = time.perf_counter,
) -> Costs:
    """Lowest costs of the views and of tokens as in `rows`, in seconds of `clock`."""
    sizes: defaultdict[Size, list[View]] = defaultdict(list)
    for view in views:
        sizes[view.size].append(view)
    tower = sum(len(some) * _lowest(some, policy.views._encode, clock) for some in sizes.values())
    equal = _equal_rows(rows)
    read_token = _lowest(equal, lambda some: _read(policy, some), clock) / len(equal[0].ids)
    return Costs(tower / len(views), read_token, _token(policy, equal, clock))


def _equal_rows(rows: Sequence[Encoded]) -> list[Encoded]:
    """The rows of the most frequent length, which need no padding; equal prefixes are not
    shared.
    """
    by_length: defaultdict[int, list[Encoded]] = defaultdict(list)
    for row in rows:
        by_length[len(row.ids)].append(row)
    return max(by_length.values(), key=len)


def _lowest(items: Sequence[T], work: Callable[[Sequence[T]], object], clock: Clock) -> float:
    """Lowest seconds per item over the batch sizes."""
    found: list[float] = []
    for size in sorted({min(size, len(items)) for size in BATCHES}):
        began = clock()
        work(items[:size])
        found.append((clock() - began) / size)
    return min(found)


def _read(policy: TransformersPolicy, rows: Sequence[Encoded]) -> Read:
    """Rows read as one batch, with features that cost nothing."""
    hidden = policy.model.get_input_embeddings().weight
    blank = [
        [
            hidden.new_zeros(
                view.size[0] * view.size[1] // policy.encoder.merge**2, hidden.shape[1]
            )
            for view in row.views
        ]
        for row in rows
    ]
    return read(policy.model, rows, blank, prefixes=None, room=TOKENS + 1)


def _token(policy: TransformersPolicy, rows: Sequence[Encoded], clock: Clock) -> float:
    """Lowest seconds of a sampled token."""
    found: list[float] = []
    for size in sorted({min(size, len(rows)) for size in BATCHES}):
        start = _read(policy, rows[:size])
        found.append(_steps(policy, rows[:size], start, clock) / size / TOKENS)
    return min(found)


def _steps(policy: TransformersPolicy, rows: Sequence[Encoded], start: Read, clock: Clock) -> float:
    cache: KeyValues = start.cache
    visible = start.visible
    place = torch.tensor([int(row.positions[0, -1]) + 1 for row in rows])
    tokens = torch.full((len(rows),), policy.encoder.end_of_turn)
    began = clock()
    for _ in range(TOKENS):
        visible = torch.cat([visible, visible.new_ones(len(visible), 1)], dim=1)
        policy.model.lm_head(_step(policy.model, tokens, place, visible, cache))
        place = place + 1
    return clock() - began
