"""The pictures of pretraining: a pool of scenes, regions of them at a size, and their patches."""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from lfpc.mini.scenes import EASY, HARD, WIDE, WIDE_HARD, Scene, draw_scene
from lfpc.policies.qwen.vision import MEAN, STD

PRETRAIN_SEEDS = 10
"""First part of every scene seed used here; the demo's splits use others."""
READABLE = 11.0
"""Minimum height of a readable capital letter in a view, in pixels."""
Region = tuple[float, float, float, float]
"""Part of a scene in pixels of the original, xyxy."""


@lru_cache(maxsize=8000)
def pool_scene(index: int, *, wide: bool = False) -> Scene:
    """Scene `index` of pretraining; every third is a hard one."""
    easy, hard = (WIDE, WIDE_HARD) if wide else (EASY, HARD)
    return draw_scene([PRETRAIN_SEEDS, index], hard if index % 3 == 2 else easy)


def patches(pixels: np.ndarray) -> torch.Tensor:
    """Pictures as Qwen2.5-VL's vision tower takes them.

    Args:
        pixels: (batch, height, width, 3) uint8, sides multiples of 28.
    Returns:
        (batch * height/14 * width/14, 588) float32, for `lfpc.policies.qwen.vision.tower`; patches
        of one token are neighbours.
    """
    n, height, width, _ = pixels.shape
    x = (
        (pixels.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    ).transpose(0, 3, 1, 2)
    x = x.reshape(n, 3, height // 28, 2, 14, width // 28, 2, 14).transpose(0, 2, 5, 3, 6, 1, 4, 7)
    return torch.from_numpy(
        np.ascontiguousarray(x).reshape(n * (height // 14) * (width // 14), 588)
    )


def show(scene: Scene, region: Region, size: tuple[int, int]) -> np.ndarray:
    """`region` (pixels of the original, xyxy) of the scene at `size` (width, height), as (height,
    width, 3) uint8.
    """
    if region == (0, 0, *scene.image.size) and size == scene.image.size:
        return np.asarray(scene.image)
    return np.asarray(scene.image.resize(size, Image.Resampling.BICUBIC, box=region))


def crop_region(
    rng: np.random.Generator, scene: Scene, grid: tuple[int, int], zoom: float
) -> Region:
    """A region `zoom` times as high as a random object, of the grid's aspect, off centre, inside
    the picture (pixels, xyxy).
    """
    thing = scene.things[int(rng.integers(len(scene.things)))]
    width, height = scene.image.size
    h = min((thing.box.y1 - thing.box.y0) * height * zoom, height)
    w = min(h * grid[1] / grid[0], width)
    x = (thing.box.x0 + thing.box.x1) / 2 * width + rng.normal(0, 0.15) * w
    y = (thing.box.y0 + thing.box.y1) / 2 * height + rng.normal(0, 0.15) * h
    x0 = min(max(x - w / 2, 0), width - w)
    y0 = min(max(y - h / 2, 0), height - h)
    return (x0, y0, x0 + w, y0 + h)


def hit_rate(logits: torch.Tensor, wanted: torch.Tensor) -> float:
    """Accuracy of (n, classes) logits; NaN for none."""
    return (logits.argmax(1) == wanted).float().mean().item() if len(wanted) else float("nan")
