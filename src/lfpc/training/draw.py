"""Which samples a step uses, and at which first-view budget."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Condition
from typing import Any

import numpy as np
from cachetools import cached

from lfpc.boxes import Size
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
Each = Callable[..., Iterable[Any]]
"""`map`, or that of a thread pool."""


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
    if config.reward.grounding and not any(sample.boxes for sample in samples):
        log.warning(
            "%s: no sample has truth boxes, so the grounding reward pays nothing; "
            "`lfpc annotate` draws them",
            data,
        )
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


def extra_prompts(count: int, config: TrainConfig, step: int) -> list[int]:
    """Numbers of the further samples of a step with dynamic sampling, in the order of their use: a
    function of (seed, step), without the samples that the step begins with.
    """
    drawn = np.random.default_rng([config.seed, 2, step]).permutation(count)
    first = set(prompts_of_step(count, config, step))
    return [int(place) for place in drawn if int(place) not in first]


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
        self.passed = 0
        """Broken pictures among the places that the last call of `further` went through."""

    def at(self, places: Sequence[int], each: Each = map) -> list[Sample]:
        """The samples at `places`; for one with a broken picture, the next that opens.

        Args:
            places: numbers of samples.
            each: `map`, or that of a thread pool, in which the pictures are opened first.
        Raises:
            PictureError: no picture opens.
        """
        self._ahead([self._samples[place] for place in places], each)
        return [self._next(place) for place in places]

    def further(
        self, places: Sequence[int], start: int, count: int, each: Each = map
    ) -> list[Sample]:
        """Of the samples at `places` whose pictures open, those from the number `start` on, at most
        `count`.
        """
        self._ahead([self._samples[place] for place in places[start : start + count]], each)
        opened: list[Sample] = []
        self.passed = 0
        for place in places:
            if len(opened) == start + count:
                break
            if self._opens(sample := self._samples[place]):
                opened.append(sample)
            else:
                self.passed += 1
        return opened[start:]

    def all(self, each: Each = map) -> list[Sample]:
        """Every sample whose picture opens."""
        self._ahead(self._samples, each)
        return [sample for sample in self._samples if self._opens(sample)]

    def _ahead(self, samples: Sequence[Sample], each: Each) -> None:
        """Open side by side what is then opened in order, from a cache."""
        if each is not map:
            deque(each(self._try, {sample.image: sample for sample in samples}.values()), 0)

    def _try(self, sample: Sample) -> None:
        if sample.id not in self.broken:
            with suppress(PictureError):  # met again, in the order of the samples
                self._open(sample)

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
    """`look` with a cache: rollouts that ask for the same box get the same object, in any
    thread.
    """
    return cached({}, key=lambda sample, box: (sample.id, box), condition=Condition())(look)
