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


CALL_TOKENS = 16_384
"""Maximum visual tokens per call of the tower, unless one picture has more."""


class ViewEncoder:
    """Features of views, encoded in batched calls of at most `CALL_TOKENS` visual tokens.

    Args:
        model: a model of a supported architecture, with the `normalised` that `load_checkpoint`
            set; without it, Qwen2.5-VL's.
        share: whether to encode equal pictures once; False for comparison.
        kept_tokens: visual tokens of the pictures that `remembered` keeps, besides those of the
            last request.
    """

    def __init__(self, model: Any, *, share: bool = True, kept_tokens: int = 2**16) -> None:
        self.model = model
        self.share = share
        self.kept_tokens = kept_tokens
        self.count = VisionCount()
        self._kept: dict[int, tuple[View, Tensor]] | None = None
        self._pixels: dict[int, tuple[View, Tensor, tuple[int, int, int]]] | None = None

    def features(self, views: Sequence[View], *, anew: bool = False) -> list[Tensor]:
        """(visual tokens, hidden) features of every view, in order; equal pictures get the same
        tensor object. `anew`: remembered features are of earlier weights, and not used.
        """
        if not self.share:
            return self._encode(views)
        forget = anew or torch.is_grad_enabled()
        kept = {} if self._kept is None or forget else self._kept
        self._drop_oldest()
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

    def _drop_oldest(self) -> None:
        """Drop the oldest pictures beyond `kept_tokens`."""
        for store, rows in ((self._kept, 1), (self._pixels, self._unit)):
            tokens = {key: len(found[1]) // rows for key, found in (store or {}).items()}
            total = sum(tokens.values())
            for key, count in tokens.items():
                if store is None or total <= self.kept_tokens:
                    break
                total -= count
                del store[key]

    def _encode(self, views: Sequence[View]) -> list[Tensor]:
        prepared = [self._prepare(view) for view in views]
        sizes = [len(pixels) // self._unit for pixels, _ in prepared]
        tower = architecture_of(self.model).tower
        features: list[Tensor] = []
        for part in token_pieces(sizes, CALL_TOKENS):
            pixels = torch.cat([prepared[n][0] for n in part]).to(self.model.device)
            found = tower(self.model.model.visual, pixels, [prepared[n][1] for n in part])
            features += found.split([sizes[n] for n in part])
            self.count.calls += 1
        self.count.pictures += len(views)
        self.count.tokens += sum(sizes)
        return features

    @property
    def _unit(self) -> int:
        """Patches of a visual token."""
        return self.model.model.visual.spatial_merge_size**2

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


def token_pieces(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Numbers of `sizes`, in order, in pieces whose sum is at most `most`; a larger one is a piece
    of its own.
    """
    pieces: list[list[int]] = []
    total = most
    for number, size in enumerate(sizes):
        total += size
        if total > most:
            pieces.append([])
            total = size
        pieces[-1].append(number)
    return pieces
