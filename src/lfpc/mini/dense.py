"""Pretraining, first part: dense targets for the vision tower.

Each visual token on an object has the object's colour, shape and box as targets. The tokens at a
readable mark share the mark as their target.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from lfpc.mini.model import NUMBERS
from lfpc.mini.pictures import READABLE, Region, crop_region, hit_rate, patches, pool_scene, show
from lfpc.mini.scenes import COLORS, MARKS, SHAPES, Scene
from lfpc.policies.qwen.architectures.qwen2_5_vl import tower


class DenseHeads(torch.nn.Module):
    """Heads that predict the dense targets from the features, in pretraining only.

    Names are scored with the language model's own token embeddings, so that a picture's "red" and
    the word become one direction.
    """

    def __init__(self, width: int, encode: Callable[[str], list[int]]) -> None:
        super().__init__()
        self.background = torch.nn.Linear(width, 2)
        self.box = torch.nn.Linear(width, 8)
        self.mentioned_box = torch.nn.Linear(width, 4)
        self.corners = torch.nn.Linear(width, 4 * width)
        self.scale = torch.nn.Parameter(torch.full((4,), 10.0))
        names = (COLORS, [f" {shape}" for shape in SHAPES], MARKS)
        self.ids = [torch.tensor([encode(name)[0] for name in some]) for some in names]
        self.numbers = torch.tensor([encode(str(n))[0] for n in range(NUMBERS)])

    def forward(self, features: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits of colour and shape (0: background) and mark, and the box (tokens, 8), of (tokens,
        width) features.
        """
        color, shape, mark = (
            scale * features @ table[ids].T
            for scale, ids in zip(self.scale[:3], self.ids, strict=True)
        )
        nothing = self.background(features)
        return (
            torch.cat([nothing[:, :1], color], dim=1),
            torch.cat([nothing[:, 1:], shape], dim=1),
            mark,
            self.box(features),
        )

    def mentioned_mark(self, states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """(mentions, marks) logits of (mentions, width) states, scored like the answer: normalised,
        with the word embeddings.
        """
        return self.scale[3] * F.rms_norm(states, states.shape[-1:]) @ table[self.ids[2]].T

    def mentioned_corners(self, states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """(mentions, 4, numbers) logits of a mentioned thing's corners in pixels, so that writing a
        number is one linear step away.
        """
        wanted = self.corners(F.rms_norm(states, states.shape[-1:])).unflatten(1, (4, -1))
        return wanted @ table[self.numbers].T


@dataclass(frozen=True, slots=True)
class DenseBatch:
    """Views of one size with a target for each visual token; class -1: no loss."""

    pixels: np.ndarray
    color: np.ndarray
    shape: np.ndarray
    mark: np.ndarray
    group: np.ndarray
    """(batch, tokens): object of a token with a mark target; the tokens of one object share one
    loss."""
    box: np.ndarray
    """(batch, tokens, 8): box in tokens, first relative to the token's centre, then to the
    picture's corner."""


def dense_batch(
    rng: np.random.Generator, progress: float, scenes: int, *, wide: bool = False
) -> DenseBatch:
    """Whole pictures at four budgets, and crops that start at the mark itself and widen with
    `progress` in [0, 1].
    """
    kind = rng.choice(
        ["crop", "small", "middle", "full"],
        p=[0.62, 0.16, 0.1, 0.12] if progress < 0.5 else [0.45, 0.13, 0.14, 0.28],
    )
    shapes = (
        [(3, 3), (3, 3), (3, 4), (4, 3), (4, 4)]
        if progress < 0.5
        else [(4, 4), (3, 4), (4, 5), (5, 4), (5, 5)]
    )
    count, grid = {
        "crop": (32, shapes[int(rng.integers(5))]),
        "small": (24, (5, 5)),
        "middle": (6, [(8, 8), (12, 12)][int(rng.integers(2))]),
        "full": (3, (16, 16)),
    }[str(kind)]
    views = []
    targets = []
    for _ in range(count):
        scene = pool_scene(int(rng.integers(scenes)), wide=wide)
        side = scene.image.width
        region = (0, 0, side, side)
        if kind == "crop":
            region = crop_region(rng, scene, grid, 0.35 + (0.3 + 2.6 * progress) * rng.random())
        views.append(show(scene, region, (grid[1] * 28, grid[0] * 28)))
        targets.append(dense_targets(scene, region, grid))
    return DenseBatch(np.stack(views), *(np.stack(part) for part in zip(*targets, strict=True)))


def dense_targets(
    scene: Scene, region: Region, grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Colour, shape, mark class and object number (tokens,) and box (tokens, 8) of the object each
    visual token lies on.
    """
    rows, columns = grid
    width, height = scene.image.size
    cell = (region[2] - region[0]) / columns, (region[3] - region[1]) / rows
    xs = np.tile(np.arange(columns) + 0.5, rows)
    ys = np.repeat(np.arange(rows) + 0.5, columns)
    best = np.full(rows * columns, np.inf)
    color = np.zeros(rows * columns, int)
    shape = np.zeros(rows * columns, int)
    mark = np.full(rows * columns, -1)
    box = np.zeros((rows * columns, 8), np.float32)
    group = np.zeros(rows * columns, int)
    for number, thing in enumerate(scene.things):
        x0, x1 = ((v * width - region[0]) / cell[0] for v in (thing.box.x0, thing.box.x1))
        y0, y1 = ((v * height - region[1]) / cell[1] for v in (thing.box.y0, thing.box.y1))
        away = np.maximum(
            np.maximum(x0 - xs, xs - x1), np.maximum(y0 - ys, ys - y1)
        )  # tokens, negative inside
        here = (away < 0.25) & (away < best)
        best[here] = away[here]
        color[here] = 1 + list(COLORS).index(thing.color)
        shape[here] = 1 + SHAPES.index(thing.shape)
        tall = (thing.mark_box.y1 - thing.mark_box.y0) * height / cell[1] * 28
        inside = region[0] <= thing.mark_box.x0 * width and thing.mark_box.x1 * width <= region[2]
        inside &= (
            region[1] <= thing.mark_box.y0 * height and thing.mark_box.y1 * height <= region[3]
        )
        if tall >= READABLE and inside:
            u0, u1 = (
                (v * width - region[0]) / cell[0] for v in (thing.mark_box.x0, thing.mark_box.x1)
            )
            v0, v1 = (
                (v * height - region[1]) / cell[1] for v in (thing.mark_box.y0, thing.mark_box.y1)
            )
            beside = np.maximum(np.maximum(u0 - xs, xs - u1), np.maximum(v0 - ys, ys - v1))
            mark[here & (beside < 0.6)] = MARKS.index(thing.mark)
            group[here] = number
        corners = np.clip([x0, y0, x1, y1], 0, [columns, rows, columns, rows])
        box[here] = np.concatenate(
            [corners - np.stack([xs, ys, xs, ys], 1)[here], np.tile(corners, (here.sum(), 1))],
            axis=1,
        )
    return color, shape, mark, group, box


def dense_loss(
    visual: torch.nn.Module, heads: DenseHeads, table: torch.Tensor, batch: DenseBatch
) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropies of colour, shape and mark, L1 of the box, over the tokens that have a
    target.
    """
    n, height, width, _ = batch.pixels.shape
    features = tower(visual, patches(batch.pixels), [(1, height // 14, width // 14)] * n)
    color, shape, mark, box = heads(features, table)
    wanted = [torch.from_numpy(part).flatten() for part in (batch.color, batch.shape, batch.mark)]
    on = wanted[0] > 0
    readable = wanted[2] >= 0
    loss = F.cross_entropy(color, wanted[0]) + F.cross_entropy(shape, wanted[1])
    facts = {
        "color": hit_rate(color[on], wanted[0][on]),
        "shape": hit_rate(shape[on], wanted[1][on]),
    }
    if on.any():
        gap = (box - torch.from_numpy(batch.box).flatten(0, 1))[on].abs()
        loss = loss + gap.mean()
        facts["box_full" if height >= 400 else "box_small" if height == 140 else "box_other"] = (
            gap[:, :4].mean().item()
        )
    if readable.any():
        keys = (torch.arange(n)[:, None] * 100 + torch.from_numpy(batch.group)).flatten()[readable]
        _, index, counts = keys.unique(return_inverse=True, return_counts=True)
        together = (
            torch.zeros(len(counts), len(MARKS)).index_add(0, index, mark[readable])
            / counts[:, None]
        )
        answer = torch.zeros(len(counts), dtype=torch.long).index_copy(
            0, index, wanted[2][readable]
        )
        loss = loss + 2 * F.cross_entropy(together, answer)
        facts["seen_mark_full" if height >= 400 else "seen_mark"] = hit_rate(together, answer)
    return loss, facts
