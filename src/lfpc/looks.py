"""What the crop tool shows. A probe is another `Look`, and nothing else changes.

A look answers a requested box with a view, or with None: no picture comes back.
"""

from collections.abc import Callable
from zlib import crc32

from lfpc.boxes import Box, union
from lfpc.errors import SampleError
from lfpc.images import CropRules, View, crop_view, noise_view, open_picture
from lfpc.samples import Sample

Look = Callable[[Sample, Box], View | None]


def original_look(rules: CropRules) -> Look:
    """The requested box, cut from the full-resolution original: training, evaluation, use."""
    return lambda sample, box: crop_view(open_picture(sample.image), box, rules)


def truth_look(rules: CropRules, *, level: int = 1) -> Look:
    """Whatever was requested, the union over targets of their nested truth box number `level` (0: tightest; fewer: the widest)."""

    def look(sample: Sample, box: Box) -> View:
        if not sample.boxes:
            raise SampleError(f"sample {sample.id!r} has no boxes; the truth probe needs them")
        target = union([nested[min(level, len(nested) - 1)] for nested in sample.boxes])
        return crop_view(open_picture(sample.image), target, rules)

    return look


def noise_look(rules: CropRules, *, seed: int = 0) -> Look:
    """Noise of the size the requested crop would have had, drawn from `seed`, the sample's id and the box."""
    shown = original_look(rules)

    def look(sample: Sample, box: Box) -> View | None:
        view = shown(sample, box)
        return view and noise_view(view, crc32(f"{seed}/{sample.id}/{box.corners}".encode()))

    return look


def other_look(rules: CropRules, other: Callable[[Sample], Sample]) -> Look:
    """The requested box, cut from the picture of `other(sample)`: sharp, plausible, and about something else."""
    return lambda sample, box: crop_view(open_picture(other(sample).image), box, rules)


def no_look(sample: Sample, box: Box) -> None:
    """No picture comes back."""
