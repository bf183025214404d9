"""Looks: what the crop tool shows. A probe changes the `Look` only.

A look maps a requested box to a view, or to None for no picture. It depends on the sample and the
box only, so that pages can reproduce what a policy saw, and resumed runs show the same.
"""

import random
from collections.abc import Callable
from zlib import crc32

from lfpc.boxes import Box, corner_distance, union
from lfpc.errors import SampleError
from lfpc.images import (
    CropRules,
    View,
    blurred_view,
    crop_view,
    noise_view,
    noisy_view,
    one_colour,
    open_picture,
)
from lfpc.samples import Sample

Look = Callable[[Sample, Box], View | None]


def original_look(rules: CropRules) -> Look:
    """The requested box, cut from the full-resolution original."""
    return lambda sample, box: crop_view(open_picture(sample.image), box, rules)


def truth_look(
    rules: CropRules, *, level: int = 1, padding: float = 0.0, each: bool = False
) -> Look:
    """The truth boxes, for any requested box.

    Args:
        rules: resolution of crops.
        level: number of the nested truth box (0: the tightest; the widest if there are fewer).
        padding: share of the box's width and height added on every side.
        each: whether to show one target per call, the nearest to the requested box; False: the
            union of all targets.
    """

    def look(sample: Sample, box: Box) -> View:
        if not sample.boxes:
            raise SampleError(f"sample {sample.id!r} has no boxes, which the truth probe needs")
        targets = [nested[min(level, len(nested) - 1)] for nested in sample.boxes]
        target = (
            min(targets, key=lambda target: corner_distance(target, box))
            if each
            else union(targets)
        )
        return crop_view(open_picture(sample.image), target.grown(padding), rules)

    return look


def fixed_look(rules: CropRules, region: Box) -> Look:
    """`region` of the original, for any requested box: a person's choice."""
    return lambda sample, box: crop_view(open_picture(sample.image), region, rules)


def noise_look(rules: CropRules, *, seed: int = 0, added: bool = False) -> Look:
    """Noise of the size of the requested crop, seeded by `seed`, the sample's id and the box.

    Args:
        rules: resolution of crops.
        seed: seed of the noise.
        added: whether the noise is added to the crop; False: it replaces the crop.
    """
    change = noisy_view if added else noise_view

    def look(sample: Sample, box: Box) -> View:
        view = crop_view(open_picture(sample.image), box, rules)
        return change(view, _seed_of(seed, sample, box))

    return look


def random_look(rules: CropRules, *, seed: int = 0) -> Look:
    """A box of the requested width and height at a random place of the same picture: what pointing
    is worth. Seeded by `seed`, the sample's id and the box.
    """

    def look(sample: Sample, box: Box) -> View:
        place = random.Random(_seed_of(seed, sample, box))
        width, height = box.x1 - box.x0, box.y1 - box.y0
        x, y = place.uniform(0, 1 - width), place.uniform(0, 1 - height)
        moved = Box(x, y, min(1.0, x + width), min(1.0, y + height))
        return crop_view(open_picture(sample.image), moved, rules)

    return look


def _seed_of(seed: int, sample: Sample, box: Box) -> int:
    return crc32(f"{seed}/{sample.id}/{box.corners}".encode())


def other_look(rules: CropRules, other: Callable[[Sample], Sample]) -> Look:
    """The requested box, cut from the picture of `other(sample)`."""
    return lambda sample, box: crop_view(open_picture(other(sample).image), box, rules)


def mean_look(rules: CropRules) -> Look:
    """One colour: the mean of the requested crop."""
    return lambda sample, box: one_colour(crop_view(open_picture(sample.image), box, rules))


def black_look(rules: CropRules) -> Look:
    """Black, of the size of the requested crop."""
    return lambda sample, box: one_colour(
        crop_view(open_picture(sample.image), box, rules), (0, 0, 0)
    )


def blur_look(rules: CropRules) -> Look:
    """The requested crop, blurred until unreadable; see `blurred_view`."""
    return lambda sample, box: blurred_view(crop_view(open_picture(sample.image), box, rules))


def no_look(sample: Sample, box: Box) -> None:
    """No picture, for any box."""
