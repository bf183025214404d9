"""What the crop tool shows. A probe is another `Look`, and nothing else changes.

A look answers a requested box with a view, or with None: no picture comes back. It depends on the
sample and the box only, so that a page can show again what a policy saw, and a resumed run shows
the same.
"""

from collections.abc import Callable
from zlib import crc32

from lfpc.boxes import Box, corner_distance, union
from lfpc.errors import SampleError
from lfpc.images import (
    CropRules,
    View,
    blurred_view,
    crop_view,
    mean_view,
    noise_view,
    open_picture,
)
from lfpc.samples import Sample

Look = Callable[[Sample, Box], View | None]


def original_look(rules: CropRules) -> Look:
    """The requested box, cut from the full-resolution original: training, evaluation, use."""
    return lambda sample, box: crop_view(open_picture(sample.image), box, rules)


def truth_look(
    rules: CropRules, *, level: int = 1, padding: float = 0.0, each: bool = False
) -> Look:
    """Where the answer is, whatever was requested.

    Args:
        rules: how a crop becomes a picture.
        level: which of a target's nested truth boxes (0: the tightest; if there are fewer: the
            widest).
        padding: share of the box's width and height added on every side.
        each: show one target a call, the one whose box is nearest to the requested one, so that a
            policy which asks for one place after the other sees one target after the other. False:
            the union of all targets.
    """

    def look(sample: Sample, box: Box) -> View:
        if not sample.boxes:
            raise SampleError(f"sample {sample.id!r} has no boxes; the truth probe needs them")
        targets = [nested[min(level, len(nested) - 1)] for nested in sample.boxes]
        target = (
            min(targets, key=lambda target: corner_distance(target, box))
            if each
            else union(targets)
        )
        return crop_view(open_picture(sample.image), target.grown(padding), rules)

    return look


def fixed_look(rules: CropRules, region: Box) -> Look:
    """`region` of the original, whatever was requested: what a person chose instead."""
    return lambda sample, box: crop_view(open_picture(sample.image), region, rules)


def noise_look(rules: CropRules, *, seed: int = 0) -> Look:
    """Noise of the size the requested crop would have had, drawn from `seed`, the sample's id and
    the box.
    """
    shown = original_look(rules)

    def look(sample: Sample, box: Box) -> View | None:
        view = shown(sample, box)
        return view and noise_view(view, crc32(f"{seed}/{sample.id}/{box.corners}".encode()))

    return look


def other_look(rules: CropRules, other: Callable[[Sample], Sample]) -> Look:
    """The requested box, cut from the picture of `other(sample)`: sharp, plausible, and about
    something else.
    """
    return lambda sample, box: crop_view(open_picture(other(sample).image), box, rules)


def mean_look(rules: CropRules) -> Look:
    """One colour: the mean of the requested crop."""
    return lambda sample, box: mean_view(crop_view(open_picture(sample.image), box, rules))


def blur_look(rules: CropRules) -> Look:
    """The requested crop, blurred beyond reading; see `blurred_view`."""
    return lambda sample, box: blurred_view(crop_view(open_picture(sample.image), box, rules))


def no_look(sample: Sample, box: Box) -> None:
    """No picture comes back."""
