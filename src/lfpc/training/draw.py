"""Which samples a step uses, and at which first-view budget."""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from lfpc.boxes import Box, Size
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

log = logging.getLogger(__name__)
VIEW_BYTES = 2**30
"""Bytes of cached first views: 20 of 16,384 visual tokens, or 300 of 1,024."""
FirstView = Callable[[Sample], View]


def training_samples(data: Path, config: TrainConfig) -> list[Sample]:
    """The samples in `data`, with their pictures and, if first views have selected budgets, those
    checked. With first_view="random" the budgets are dealt anew, by `config.seed`.
    """
    samples = read_samples(data)
    if not samples:
        raise SampleError(f"{data}: no samples")
    for sample in samples:
        if config.selects and sample.budget is None:
            raise SampleError(
                f"{data}: sample {sample.id!r} has no 'budget'; run `lfpc select` first, "
                f"or use a `first_view` of fixed or original"
            )
        if not sample.image.is_file():
            raise PictureError(f"{sample.image}: no such picture (sample {sample.id!r} of {data})")
    if config.first_view == "random":
        dealt = np.random.default_rng(config.seed).permutation(len(samples))
        budgets = [samples[int(place)].budget for place in dealt]
        samples = [replace(a, budget=b) for a, b in zip(samples, budgets, strict=True)]
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


class Openable:
    """Samples whose pictures open, in place of those that were drawn: a broken picture loses its
    own sample only, at any step.
    """

    def __init__(self, samples: Sequence[Sample], open_sample: Callable[[Sample], object]) -> None:
        """Draw from `samples`; `open_sample` raises PictureError for a broken picture."""
        self._samples = samples
        self._open = open_sample
        self.broken: dict[str, str] = {}
        """Reason by id of each sample that was skipped so far."""

    def at(self, places: Iterable[int]) -> list[Sample]:
        """The samples at `places`; for one with a broken picture, the next that opens.

        Raises:
            PictureError: no picture opens.
        """
        return [self._next(place) for place in places]

    def all(self) -> list[Sample]:
        """Every sample whose picture opens."""
        return [sample for sample in self._samples if self._opens(sample)]

    def _next(self, place: int) -> Sample:
        count = len(self._samples)
        turned = (self._samples[(place + ahead) % count] for ahead in range(count))
        sample = next(filter(self._opens, turned), None)
        if sample is None:
            reason = next(iter(self.broken.values()), "")
            raise PictureError(f"none of the {count} pictures opens; the first: {reason}")
        return sample

    def _opens(self, sample: Sample) -> bool:
        if sample.id in self.broken:
            return False
        try:
            self._open(sample)
        except PictureError as error:
            self.broken[sample.id] = str(error)
            log.warning("sample %r is skipped: %s", sample.id, error)
            return False
        return True


def first_views(config: TrainConfig) -> FirstView:
    """A function from a sample to its first view, with a cache: a cached sample gets the same
    object.
    """

    @byte_cache(VIEW_BYTES, view_bytes)
    def view(path: Path, budget: int) -> View:
        return global_view(open_picture(path), budget, factor=config.crop.factor)

    def first_view(sample: Sample) -> View:
        assert sample.budget is not None or not config.selects  # checked in training_samples
        return view(sample.image, config.first_budget(sample.budget or 0))

    return first_view


def first_view_tokens(samples: Sequence[Sample], config: TrainConfig) -> list[int]:
    """Visual tokens of the first view of every sample whose picture has a readable header."""
    factor = config.crop.factor
    sizes: dict[Path, Size] = {}
    for path in {sample.image for sample in samples}:
        with suppress(PictureError):  # `Openable` reports it
            sizes[path] = upright_size(path)
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
        if sample.image in sizes
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
