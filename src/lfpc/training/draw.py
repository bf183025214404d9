"""Which samples a step uses, and at which first-view budget."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from lfpc.boxes import Box
from lfpc.caches import byte_cache
from lfpc.errors import PictureError, SampleError
from lfpc.images import (
    View,
    global_view,
    open_picture,
    shown_size,
    upright_size,
    view_bytes,
    visual_tokens,
)
from lfpc.looks import Look
from lfpc.samples import Sample, read_samples
from lfpc.training.config import TrainConfig

VIEW_BYTES = 2**30
"""Bytes of cached first views: 20 of 16,384 visual tokens, or 300 of 1,024."""
FirstView = Callable[[Sample], View]


def training_samples(data: Path, config: TrainConfig) -> list[Sample]:
    """The samples in `data`, with their pictures and, for first_view="selected", their budgets
    checked.
    """
    samples = read_samples(data)
    if not samples:
        raise SampleError(f"{data}: no samples")
    for sample in samples:
        if config.first_view == "selected" and sample.budget is None:
            raise SampleError(
                f"{data}: sample {sample.id!r} has no 'budget'; run `lfpc select` first, "
                f"or use --first-view fixed or original"
            )
        if not sample.image.is_file():
            raise PictureError(f"{sample.image}: no such picture (sample {sample.id!r} of {data})")
    return samples


def validation_samples(config: TrainConfig) -> list[Sample]:
    """The held-out samples of a run; none without a validation folder."""
    if config.validation is None:
        return []
    return training_samples(config.validation, config)[: config.validation_size]


def prompts_of_step(count: int, config: TrainConfig, step: int) -> list[int]:
    """Numbers of the samples of a step, a function of (seed, step); each epoch has a new order."""
    places = range((step - 1) * config.prompts_per_step, step * config.prompts_per_step)
    return [int(_order(count, config.seed, place // count)[place % count]) for place in places]


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


def first_views(config: TrainConfig) -> FirstView:
    """A function from a sample to its first view, with a cache: a cached sample gets the same
    object.
    """

    @byte_cache(VIEW_BYTES, view_bytes)
    def view(path: Path, budget: int) -> View:
        return global_view(open_picture(path), budget, factor=config.crop.factor)

    def first_view(sample: Sample) -> View:
        assert (
            sample.budget is not None or config.first_view != "selected"
        )  # checked in training_samples
        return view(sample.image, config.first_budget(sample.budget or 0))

    return first_view


def first_view_tokens(samples: Sequence[Sample], config: TrainConfig) -> list[int]:
    """Visual tokens of the first view of every sample, by the header of its picture.

    Raises:
        PictureError: an unreadable picture.
    """
    factor = config.crop.factor
    sizes = {path: upright_size(path) for path in {sample.image for sample in samples}}
    return [
        visual_tokens(
            shown_size(
                sizes[sample.image],
                max_tokens=config.first_budget(sample.budget or 0),
                factor=factor,
            ),
            factor,
        )
        for sample in samples
    ]


def look_once(look: Look) -> Look:
    """`look` with a cache: rollouts that ask for the same box get the same object."""
    shown: dict[tuple[str, Box], View | None] = {}

    def once(sample: Sample, box: Box) -> View | None:
        key = (sample.id, box)
        if key not in shown:
            shown[key] = look(sample, box)
        return shown[key]

    return once
