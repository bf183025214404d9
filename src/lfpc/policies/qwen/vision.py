"""Pictures through the vision tower, each distinct one once.

The rollouts of a question share their first view, which is preprocessed and encoded once. The
features of a shared picture receive the sum of the gradients of its uses, as if each had been
encoded separately.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lfpc.images import View
from lfpc.policies.qwen.architectures import architecture_of

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Channel mean and standard deviation of CLIP's training pictures, which Qwen2.5-VL's processor
uses."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Channel mean and standard deviation of a checkpoint's picture processor."""

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __call__(self, image: Image.Image) -> np.ndarray:
        """(height, width, 3) float32 normalised pixels."""
        scale = np.asarray([1 / (255 * s) for s in self.std], dtype=np.float32)
        shift = [m / s for m, s in zip(self.mean, self.std, strict=True)]
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
        return pixels * scale - np.asarray(shift, dtype=np.float32)


CLIP = Normalisation()


def patchify(
    image: Image.Image, *, patch: int = 14, merge: int = 2, normalised: Normalisation = CLIP
) -> tuple[Tensor, tuple[int, int, int]]:
    """One picture as normalised patches, blocks of `merge` x `merge` patches together.

    A still picture is one frame here: the tower's second, equal frame is folded into its weights
    (see `embedded_patches`).

    Args:
        image: RGB, sides multiples of `patch * merge`.
    Returns:
        (patches, 3 * patch * patch) float32, and the grid (1, rows, columns) in patches.
    Source: equal to the first frame of transformers' Qwen2VLImageProcessor.
    """
    pixels = normalised(image)
    return in_patches(pixels, patch, merge), (1, pixels.shape[0] // patch, pixels.shape[1] // patch)


def in_patches(pixels: np.ndarray, patch: int, merge: int) -> Tensor:
    """(height, width, 3) pixels as (patches, 3 * patch * patch), blocks of `merge` x `merge`
    patches together.
    """
    height = pixels.shape[0] // patch
    width = pixels.shape[1] // patch
    blocks = pixels.reshape(height // merge, merge, patch, width // merge, merge, patch, 3)
    flat = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(height * width, 3 * patch * patch)
    return torch.from_numpy(np.ascontiguousarray(flat))


@dataclass(slots=True)
class VisionCount:
    """Counts of the tower's work."""

    pictures: int = 0
    """Pictures passed through the tower."""
    tokens: int = 0
    """Visual tokens returned by the tower."""
    calls: int = 0
    """Batched calls of the tower."""


class ViewEncoder:
    """Features of views, encoded in one batched call per request.

    Args:
        model: a model of a supported architecture, with the `normalised` that `load_checkpoint`
            set; without it, Qwen2.5-VL's.
        share: whether to encode equal pictures once; False for comparison.
    """

    def __init__(self, model: Any, *, share: bool = True) -> None:
        self.model = model
        self.share = share
        self.count = VisionCount()
        self._kept: dict[int, tuple[View, Tensor]] | None = None
        self._pixels: dict[int, tuple[View, Tensor, tuple[int, int, int]]] | None = None

    def features(self, views: Sequence[View]) -> list[Tensor]:
        """(visual tokens, hidden) features of every view, in order; equal pictures get the same
        tensor object.
        """
        if not self.share:
            return self._encode(views)
        kept = {} if self._kept is None or torch.is_grad_enabled() else self._kept
        fresh = {id(view.image): view for view in views if id(view.image) not in kept}
        kept.update(
            zip(
                fresh,
                zip(fresh.values(), self._encode(list(fresh.values())), strict=True),
                strict=True,
            )
        )
        return [kept[id(view.image)][1] for view in views]

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Cache prepared pixels, and features without gradients, in this block; weights must not
        change in it.
        """
        self._kept = {}
        self._pixels = {}
        try:
            yield
        finally:
            self._kept = self._pixels = None

    def _encode(self, views: Sequence[View]) -> list[Tensor]:
        if not views:
            return []
        prepared = [self._prepare(view) for view in views]
        visual = self.model.model.visual
        pixels = torch.cat([pixels for pixels, _ in prepared]).to(self.model.device)
        tower = architecture_of(self.model).tower
        features = tower(visual, pixels, [grid for _, grid in prepared])
        unit = visual.spatial_merge_size**2
        sizes = [rows * columns // unit for _, (_, rows, columns) in prepared]
        self.count.pictures += len(views)
        self.count.tokens += sum(sizes)
        self.count.calls += 1
        return list(features.split(sizes))

    def _prepare(self, view: View) -> tuple[Tensor, tuple[int, int, int]]:
        visual = self.model.model.visual
        if self._pixels is not None and id(view.image) in self._pixels:
            return self._pixels[id(view.image)][1:]
        prepared = patchify(
            view.image,
            patch=visual.config.patch_size,
            merge=visual.spatial_merge_size,
            normalised=getattr(self.model, "normalised", CLIP),
        )
        if self._pixels is not None:
            self._pixels[id(view.image)] = (view, *prepared)
        return prepared
