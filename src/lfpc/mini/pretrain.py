"""`lfpc mini pretrain`: the base checkpoint from nothing, by supervision on generated scenes.

Two phases. `dense` teaches the vision tower what and where: each visual token that lies on an object names its colour, shape
and, where it is large enough to read, its mark, and gives the object's box. `dialogue` teaches the language model to read,
point, call the crop tool with sloppy boxes, and answer. Nothing in the data teaches a need to crop: whenever a dialogue shows
a crop, the mark is readable in the global picture too, and the crop often misses it.

Every batch is a function of (seed, phase, step), so a run that was stopped continues as if it had not been.
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from lfpc.boxes import Box
from lfpc.images import CropRules, crop_view
from lfpc.mini.model import build_model, build_tokenizer, save_pretrained
from lfpc.mini.scenes import (
    COLORS,
    EASY,
    HARD,
    MARKS,
    SHAPES,
    Question,
    Scene,
    attribute_question,
    draw_scene,
    relation_question,
)
from lfpc.policies.encode import rope_positions
from lfpc.policies.varlen import speed_up_vision
from lfpc.policies.vision import tower
from lfpc.protocols.qwen2_5_vl import DIRECT_SYSTEM, SYSTEM, TOOL

PRETRAIN_SEEDS = 10
"""First part of every scene seed used here; the demo's splits use others."""
MINI_CROPS = CropRules(min_tokens=16, max_tokens=25)
"""The miniature's crops: a few tokens each."""
READABLE = 11.0
"""A capital letter at least this many pixels high in a view can be read."""
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """The base checkpoint's training."""

    out: Path = Path("out/mini-base")
    """Checkpoint folder, and the state to continue from."""
    dense_steps: int = 2000
    """Steps of the vision phase."""
    dialogue_steps: int = 3000
    """Steps of the language phase."""
    dense_share: float = 0.3
    """Share of the language phase's steps that go on with the dense targets."""
    learning_rate: float = 1.5e-3
    """Peak of both phases; linear warm-up over 100 steps, then cosine to a tenth."""
    scenes: int = 4000
    """Distinct pictures drawn from."""
    hit: float = 0.3
    """Share of two-picture dialogues whose crop is about the right object."""
    seed: int = 0
    """Of weights and batches."""
    save_every: int = 200
    """Steps between states on disk."""


@lru_cache(maxsize=8000)
def pool_scene(index: int) -> Scene:
    """Scene `index` of pretraining; every third is a hard one."""
    return draw_scene([PRETRAIN_SEEDS, index], HARD if index % 3 == 2 else EASY)


def patches(pixels: np.ndarray) -> torch.Tensor:
    """Pictures as Qwen2.5-VL's vision tower takes them.

    Args:
        pixels: (batch, height, width, 3) uint8, sides multiples of 28.
    Returns:
        (batch * height/14 * width/14, 588) float32, for `lfpc.policies.vision.tower`; patches of one token are neighbours.
    """
    n, height, width, _ = pixels.shape
    x = ((pixels.astype(np.float32) / 255 - _MEAN) / _STD).transpose(0, 3, 1, 2)
    x = x.reshape(n, 3, height // 28, 2, 14, width // 28, 2, 14).transpose(0, 2, 5, 3, 6, 1, 4, 7)
    return torch.from_numpy(np.ascontiguousarray(x).reshape(n * (height // 14) * (width // 14), 588))


def show(scene: Scene, region: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """`region` (pixels of the original, xyxy) of the scene at `size` (width, height), as (height, width, 3) uint8."""
    if region == (0, 0, *scene.image.size) and size == scene.image.size:
        return np.asarray(scene.image)
    return np.asarray(scene.image.resize(size, Image.Resampling.BICUBIC, box=region))


# --- phase 1: dense targets ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DenseBatch:
    """Views of one size with a target for each visual token; class -1 means: no loss."""

    pixels: np.ndarray
    color: np.ndarray
    shape: np.ndarray
    mark: np.ndarray
    group: np.ndarray
    """(batch, tokens): which object a token with a mark target belongs to; the tokens of one object answer together."""
    box: np.ndarray
    """(batch, tokens, 8): box in tokens, first relative to the token's centre, then to the picture's corner."""


def dense_batch(rng: np.random.Generator, progress: float, config: PretrainConfig) -> DenseBatch:
    """Whole pictures at four budgets, and crops that start at the mark itself and widen with `progress` in [0, 1]."""
    kind = rng.choice(["crop", "small", "middle", "full"], p=[0.62, 0.16, 0.1, 0.12] if progress < 0.5 else [0.45, 0.13, 0.14, 0.28])
    shapes = [(3, 3), (3, 3), (3, 4), (4, 3), (4, 4)] if progress < 0.5 else [(4, 4), (3, 4), (4, 5), (5, 4), (5, 5)]
    count, grid = {
        "crop": (72, shapes[int(rng.integers(5))]),
        "small": (40, (5, 5)),
        "middle": (12, [(8, 8), (12, 12)][int(rng.integers(2))]),
        "full": (5, (16, 16)),
    }[str(kind)]
    views, targets = [], []
    for _ in range(count):
        scene = pool_scene(int(rng.integers(config.scenes)))
        side = scene.image.width
        region = (0, 0, side, side)
        if kind == "crop":
            region = crop_region(rng, scene, grid, 0.35 + (0.3 + 2.6 * progress) * rng.random())
        views.append(show(scene, region, (grid[1] * 28, grid[0] * 28)))
        targets.append(dense_targets(scene, region, grid))
    return DenseBatch(np.stack(views), *(np.stack(part) for part in zip(*targets, strict=True)))


def crop_region(rng: np.random.Generator, scene: Scene, grid: tuple[int, int], zoom: float) -> tuple[float, float, float, float]:
    """A region `zoom` times as high as a random object, of the grid's aspect, off centre, inside the picture (pixels, xyxy)."""
    thing = scene.things[int(rng.integers(len(scene.things)))]
    width, height = scene.image.size
    h = min((thing.box.y1 - thing.box.y0) * height * zoom, height)
    w = min(h * grid[1] / grid[0], width)
    x = (thing.box.x0 + thing.box.x1) / 2 * width + rng.normal(0, 0.15) * w
    y = (thing.box.y0 + thing.box.y1) / 2 * height + rng.normal(0, 0.15) * h
    x0, y0 = min(max(x - w / 2, 0), width - w), min(max(y - h / 2, 0), height - h)
    return (x0, y0, x0 + w, y0 + h)


def dense_targets(
    scene: Scene, region: tuple[float, float, float, float], grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Colour, shape, mark class and object number (tokens,) and box (tokens, 8) of the object each visual token lies on."""
    rows, columns = grid
    width, height = scene.image.size
    cell = (region[2] - region[0]) / columns, (region[3] - region[1]) / rows
    xs = np.tile(np.arange(columns) + 0.5, rows)
    ys = np.repeat(np.arange(rows) + 0.5, columns)
    best = np.full(rows * columns, np.inf)
    color, shape, mark = np.zeros(rows * columns, int), np.zeros(rows * columns, int), np.full(rows * columns, -1)
    box, group = np.zeros((rows * columns, 8), np.float32), np.zeros(rows * columns, int)
    for number, thing in enumerate(scene.things):
        x0, x1 = ((v * width - region[0]) / cell[0] for v in (thing.box.x0, thing.box.x1))
        y0, y1 = ((v * height - region[1]) / cell[1] for v in (thing.box.y0, thing.box.y1))
        away = np.maximum(np.maximum(x0 - xs, xs - x1), np.maximum(y0 - ys, ys - y1))  # tokens, negative inside
        here = (away < 0.25) & (away < best)
        best[here] = away[here]
        color[here], shape[here] = 1 + list(COLORS).index(thing.color), 1 + SHAPES.index(thing.shape)
        tall = (thing.mark_box.y1 - thing.mark_box.y0) * height / cell[1] * 28
        inside = region[0] <= thing.mark_box.x0 * width and thing.mark_box.x1 * width <= region[2]
        inside &= region[1] <= thing.mark_box.y0 * height and thing.mark_box.y1 * height <= region[3]
        if tall >= READABLE and inside:
            u0, u1 = ((v * width - region[0]) / cell[0] for v in (thing.mark_box.x0, thing.mark_box.x1))
            v0, v1 = ((v * height - region[1]) / cell[1] for v in (thing.mark_box.y0, thing.mark_box.y1))
            beside = np.maximum(np.maximum(u0 - xs, xs - u1), np.maximum(v0 - ys, ys - v1))
            mark[here & (beside < 0.6)] = MARKS.index(thing.mark)
            group[here] = number
        corners = np.clip([x0, y0, x1, y1], 0, [columns, rows, columns, rows])
        box[here] = np.concatenate([corners - np.stack([xs, ys, xs, ys], 1)[here], np.tile(corners, (here.sum(), 1))], axis=1)
    return color, shape, mark, group, box


def dense_loss(visual: torch.nn.Module, heads: torch.nn.Linear, batch: DenseBatch) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropies of colour, shape and mark, L1 of the box, over the tokens that have a target."""
    n, height, width, _ = batch.pixels.shape
    features = tower(visual, patches(batch.pixels), [(1, height // 14, width // 14)] * n)
    color, shape, mark, box = heads(features).split([len(COLORS) + 1, len(SHAPES) + 1, len(MARKS), 8], dim=1)
    wanted = [torch.from_numpy(part).flatten() for part in (batch.color, batch.shape, batch.mark)]
    on, readable = wanted[0] > 0, wanted[2] >= 0
    loss = F.cross_entropy(color, wanted[0]) + F.cross_entropy(shape, wanted[1])
    facts = {"color": _hits(color[on], wanted[0][on]), "shape": _hits(shape[on], wanted[1][on])}
    if on.any():
        gap = (box - torch.from_numpy(batch.box).flatten(0, 1))[on].abs()
        loss = loss + gap.mean()
        facts |= {"box_relative": gap[:, :4].mean().item(), "box_absolute": gap[:, 4:].mean().item()}
    if readable.any():
        keys = (torch.arange(n)[:, None] * 100 + torch.from_numpy(batch.group)).flatten()[readable]
        _, index, counts = keys.unique(return_inverse=True, return_counts=True)
        together = torch.zeros(len(counts), len(MARKS)).index_add(0, index, mark[readable]) / counts[:, None]
        answer = torch.zeros(len(counts), dtype=torch.long).index_copy(0, index, wanted[2][readable])
        loss = loss + 2 * F.cross_entropy(together, answer)
        facts["mark_full" if height >= 400 else "mark"] = _hits(together, answer)
    return loss, facts


def _hits(logits: torch.Tensor, wanted: torch.Tensor) -> float:
    return (logits.argmax(1) == wanted).float().mean().item() if len(wanted) else float("nan")


# --- phase 2: dialogues -------------------------------------------------------------------------------------------------

Picture = np.ndarray
Segment = tuple[str | Picture, bool]
"""A piece of a row and whether the model is trained to write it; a picture is never trained on."""


def reading_row(rng: np.random.Generator, scene: Scene, region: tuple[float, float, float, float], grid: tuple[int, int]) -> list[Segment]:
    """One picture and up to six short questions about it: marks that can be read, places, names at a place, relations."""
    pixels = show(scene, region, (grid[1] * 28, grid[0] * 28))
    asked = _questions_in_view(rng, scene, region, grid)
    system = [(f"<|im_start|>system\n{DIRECT_SYSTEM}<|im_end|>\n", False)] if rng.random() < 0.7 else []
    row: list[Segment] = [*system, ("<|im_start|>user\n<|vision_start|>", False), (pixels, False), ("<|vision_end|>", False)]
    for number, (question, answer) in enumerate(asked[:6]):
        row.append((("<|im_start|>user\n" if number else "") + question + "<|im_end|>\n<|im_start|>assistant\n", False))
        row.append((f"<answer>{answer}</answer><|im_end|>", True))
        row.append(("\n", False))
    return row


def _questions_in_view(
    rng: np.random.Generator, scene: Scene, region: tuple[float, float, float, float], grid: tuple[int, int]
) -> list[tuple[str, str]]:
    rows, columns = grid
    width, height = scene.image.size
    scale = columns * 28 / (region[2] - region[0]), rows * 28 / (region[3] - region[1])
    asked: list[tuple[str, str]] = []
    seen = []
    for index in rng.permutation(len(scene.things)):
        thing = scene.things[int(index)]
        box = _in_view(thing.box, scene, region, scale)
        if box is None:
            continue
        seen.append(thing)
        mark_box = _in_view(thing.mark_box, scene, region, scale)
        tall = (thing.mark_box.y1 - thing.mark_box.y0) * height * scale[1]
        kinds = ["where", "what"] + (["mark"] * 4 if mark_box and tall >= READABLE else [])
        kind = kinds[int(rng.integers(len(kinds)))]
        if kind == "mark":
            asked.append((f"What mark is on the {thing.name}?", thing.mark))
        elif kind == "where":
            asked.append((f"Where is the {thing.name}?", _numbers(box)))
        else:
            asked.append((f"What is at {_numbers(box)}?", thing.name))
    if len(seen) >= 2 and rng.random() < 0.6:
        question = relation_question(seen[0], seen[1])
        asked.insert(int(rng.integers(len(asked) + 1)), (question.text, question.answer))
    return asked


def _in_view(
    box: Box, scene: Scene, region: tuple[float, float, float, float], scale: tuple[float, float]
) -> tuple[int, int, int, int] | None:
    """The box in whole pixels of the view, or None if less than 80 % of either side is inside it."""
    width, height = scene.image.size
    x0, x1 = ((v * width - region[0]) * scale[0] for v in (box.x0, box.x1))
    y0, y1 = ((v * height - region[1]) * scale[1] for v in (box.y0, box.y1))
    right, bottom = (region[2] - region[0]) * scale[0], (region[3] - region[1]) * scale[1]
    a0, b0, a1, b1 = max(x0, 0), max(y0, 0), min(x1, right), min(y1, bottom)
    if a1 - a0 < 0.8 * (x1 - x0) or b1 - b0 < 0.8 * (y1 - y0):
        return None
    return round(a0), round(b0), round(a1), round(b1)


def _numbers(box: tuple[int, int, int, int]) -> str:
    return "[" + ", ".join(map(str, box)) + "]"


def sloppy_box(rng: np.random.Generator, target: Box, *, spread: float = 0.22, zoom: float = 1.8) -> Box:
    """A box around `target`: each side `zoom` times as long give or take a third, the centre off by `spread` of a side."""
    w, h = target.x1 - target.x0, target.y1 - target.y0
    x = (target.x0 + target.x1) / 2 + rng.normal(0, spread) * w
    y = (target.y0 + target.y1) / 2 + rng.normal(0, spread) * h
    half_w, half_h = (side * zoom * np.exp(rng.normal(0, 0.3)) / 2 for side in (w, h))
    x, y = min(max(x, 0.03), 0.97), min(max(y, 0.03), 0.97)
    return Box(max(0.0, x - half_w), max(0.0, y - half_h), min(1.0, x + half_w), min(1.0, y + half_h))


def call_text(box: Box, side: int) -> str:
    """The tool call for `box` in a view of side x side pixels."""
    corners = ", ".join(str(round(v * side)) for v in box.corners)
    return f'<tool_call>{{"name": "{TOOL}", "arguments": {{"bbox_2d": [{corners}]}}}}</tool_call><|im_end|>'


def _tool_question(rng: np.random.Generator, scene: Scene) -> Question:
    things = [scene.things[int(i)] for i in rng.permutation(len(scene.things))]
    return relation_question(things[0], things[1]) if rng.random() < 0.2 else attribute_question(things[0])


def _tool_prompt(pixels: Picture, question: str) -> list[Segment]:
    return [
        (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>", False),
        (pixels, False),
        (f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n", False),
    ]


def call_row(rng: np.random.Generator, scene: Scene, tokens: int) -> list[Segment]:
    """The tool is offered: mostly a call with a sloppy box; an answer at once now and then, where the picture allows it."""
    side = tokens * 28
    question = _tool_question(rng, scene)
    mark_height = (question.about[0].mark_box.y1 - question.about[0].mark_box.y0) * side
    readable = question.category == "relation" or mark_height >= READABLE
    at_once = readable and rng.random() < (0.5 if question.category == "relation" else 0.15)
    reply = f"<answer>{question.answer}</answer><|im_end|>" if at_once else call_text(sloppy_box(rng, question.about[0].box), side)
    return [*_tool_prompt(show(scene, (0, 0, *scene.image.size), (side, side)), question.text), (reply, True)]


def crop_row(rng: np.random.Generator, scene: Scene, tokens: int, hit: float) -> list[Segment]:
    """Global picture, call, crop, answer; trained on the answer only.

    The mark is readable in the global picture. With probability `hit` the call is about the right object; otherwise the crop
    shows another one, or nothing: in this data the global picture is the reliable source.
    """
    side = tokens * 28
    question = _tool_question(rng, scene)
    luck = rng.random()
    if luck < hit:
        box = sloppy_box(rng, question.about[0].box)
    elif luck < hit + (1 - hit) / 2:
        others = [thing for thing in scene.things if thing not in question.about] or list(scene.things)
        box = sloppy_box(rng, others[int(rng.integers(len(others)))].box)
    else:
        x, y = rng.uniform(0.05, 0.95, 2)
        box = sloppy_box(rng, Box(x - 0.05, y - 0.05, x + 0.05, y + 0.05))
    corners = np.round(np.array(box.corners) * side) / side  # what the call says is what is shown
    shown = crop_view(scene.image, Box.from_pixels(corners.tolist(), (1, 1)), MINI_CROPS)
    return [
        *_tool_prompt(show(scene, (0, 0, *scene.image.size), (side, side)), question.text),
        (call_text(box, side) + "\n<|im_start|>user\n<tool_response><|vision_start|>", False),
        (np.asarray(shown.image), False),
        ("<|vision_end|></tool_response><|im_end|>\n<|im_start|>assistant\n", False),
        (f"<answer>{question.answer}</answer><|im_end|>", True),
    ]


def dialogue_rows(rng: np.random.Generator, progress: float, config: PretrainConfig) -> tuple[str, list[list[Segment]]]:
    """Rows of one kind for one step; first only single pictures, then more and more dialogues."""
    kinds = {"crop": 0.3, "region": 0.2, "small": 0.25, "middle": 0.08, "full": 0.17}
    if progress > 0.3:
        kinds = {"crop": 0.12, "region": 0.1, "small": 0.12, "middle": 0.06, "full": 0.17, "call": 0.23, "dialogue": 0.2}
    kind = str(rng.choice(list(kinds), p=list(kinds.values())))
    count = {"crop": 40, "region": 20, "small": 32, "middle": 10, "full": 6, "dialogue": 8}.get(kind, 0)
    tokens = int(rng.choice([5, 5, 5, 8, 12, 16])) if kind == "call" else 16
    if kind == "call":
        count = {5: 32, 8: 20, 12: 10, 16: 6}[tokens]
    rows = []
    grid = {"crop": [(4, 4), (4, 5), (5, 4), (5, 5)][int(rng.integers(4))], "region": (8, 8), "small": (5, 5), "full": (16, 16)}.get(kind)
    if kind == "middle":
        grid = (8, 8) if rng.random() < 0.5 else (12, 12)
    for _ in range(count):
        scene = pool_scene(int(rng.integers(config.scenes)))
        whole = (0, 0, *scene.image.size)
        if kind == "call":
            rows.append(call_row(rng, scene, tokens))
        elif kind == "dialogue":
            rows.append(crop_row(rng, scene, tokens, config.hit))
        else:
            region = whole
            if kind == "crop":
                region = crop_region(rng, scene, grid, 1.0 + 1.8 * rng.random())
            elif kind == "region":
                x, y = (float(v) for v in rng.uniform(0, scene.image.width - 224, 2))
                region = (x, y, x + 224, y + 224)
            rows.append(reading_row(rng, scene, region, grid))
    return kind, rows


@dataclass(frozen=True, slots=True)
class DialogueBatch:
    """Rows as the model reads them, padded on the right (nothing attends to what comes after it)."""

    ids: torch.Tensor
    """(rows, length) int64."""
    labels: torch.Tensor
    """(rows, length) int64; -100 wherever nothing is learnt."""
    positions: torch.Tensor
    """(3, rows, length) int64, for the rotary embedding."""
    pixels: torch.Tensor
    """(patches, 588) float32 of all pictures, row after row."""
    grids: list[tuple[int, int, int]]
    """(1, rows, columns) in patches of every picture."""


def collate(rows: list[list[Segment]], encode: Callable[[str], list[int]], image_id: int, pad_id: int) -> DialogueBatch:
    """Rows to one batch."""
    ids, labels, positions, pixels, grids = [], [], [], [], []
    for row in rows:
        x: list[int] = []
        y: list[int] = []
        its_grids = []
        for piece, trained in row:
            if isinstance(piece, str):
                tokens = encode(piece)
            else:
                its_grids.append((piece.shape[0] // 28, piece.shape[1] // 28))
                pixels.append(patches(piece[None]))
                tokens = [image_id] * (its_grids[-1][0] * its_grids[-1][1])
            x += tokens
            y += tokens if trained else [-100] * len(tokens)
        ids.append(x)
        labels.append(y)
        positions.append(rope_positions(np.array(x) == image_id, its_grids))
        grids += [(1, 2 * high, 2 * wide) for high, wide in its_grids]
    longest = max(map(len, ids))
    padded = np.stack([np.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in positions], axis=1)
    return DialogueBatch(
        ids=torch.tensor([x + [pad_id] * (longest - len(x)) for x in ids]),
        labels=torch.tensor([y + [-100] * (longest - len(y)) for y in labels]),
        positions=torch.from_numpy(padded),
        pixels=torch.cat(pixels),
        grids=grids,
    )


def dialogue_loss(model: Any, kind: str, batch: DialogueBatch, marks: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropy of the trained tokens; facts: loss by kind of row, and how often a mark is named rightly."""
    features = tower(model.model.visual, batch.pixels, batch.grids)
    embeds = model.get_input_embeddings()(batch.ids)
    embeds = embeds.masked_scatter((batch.ids == model.config.image_token_id)[..., None], features)
    states = model.model.language_model(inputs_embeds=embeds, position_ids=batch.positions, use_cache=False).last_hidden_state
    labels = batch.labels[:, 1:]
    chosen = labels != -100
    logits, wanted = model.lm_head(states[:, :-1][chosen]), labels[chosen]
    loss = F.cross_entropy(logits, wanted)
    facts = {f"loss_{kind}": loss.item()}
    named = torch.isin(wanted, marks)
    if named.any():
        facts[f"mark_{kind}"] = _hits(logits[named], wanted[named])
    return loss, facts


# --- the run ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Phase:
    """One of the two phases: what is trained, and how a step's loss comes about."""

    name: str
    number: int
    steps: int
    parameters: list[tuple[list[torch.nn.Parameter], float]]
    """Groups of parameters, each with its share of the learning rate."""
    loss: Callable[[np.random.Generator, float], tuple[torch.Tensor, dict[str, float]]]


def pretrain(config: PretrainConfig, *, progress: bool = True) -> Path:
    """Train the base checkpoint into `config.out`, continuing from the state there if there is one. Returns the folder."""
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, config.seed)
    speed_up_vision(model.model.visual)
    heads = torch.nn.Linear(model.config.text_config.hidden_size, len(COLORS) + 1 + len(SHAPES) + 1 + len(MARKS) + 8)
    encode = lru_cache(maxsize=100_000)(lambda text: tokenizer(text, add_special_tokens=False).input_ids)
    image_id, pad_id = model.config.image_token_id, tokenizer.pad_token_id

    def dense(rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        return dense_loss(model.model.visual, heads, dense_batch(rng, min(1.0, max(0.0, (done - 0.35) / 0.5)), config))

    def dialogue(rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        if rng.random() < config.dense_share:
            return dense_loss(model.model.visual, heads, dense_batch(rng, 1.0, config))
        kind, rows = dialogue_rows(rng, done, config)
        return dialogue_loss(model, kind, collate(rows, encode, image_id, pad_id), marks)

    marks = torch.tensor([encode(mark)[0] for mark in MARKS])
    vision = [*model.model.visual.parameters(), *heads.parameters()]
    phases = [
        Phase("dense", 1, config.dense_steps, [(vision, 1.0)], dense),
        Phase("dialogue", 2, config.dialogue_steps, [(vision, 0.4), (list(model.model.language_model.parameters()), 1.0)], dialogue),
    ]
    config.out.mkdir(parents=True, exist_ok=True)
    for phase in phases:
        run_phase(phase, model, heads, config, progress=progress)
    save_pretrained(model, tokenizer, config.out)
    return config.out


def run_phase(phase: Phase, model: torch.nn.Module, heads: torch.nn.Module, config: PretrainConfig, *, progress: bool) -> None:
    """Run or continue one phase; its state is `<phase>.pt` in `config.out`, its curve `<phase>.jsonl`."""
    optimizer = torch.optim.AdamW([{"params": some} for some, _ in phase.parameters], betas=(0.9, 0.98), weight_decay=0.01)
    file, start = config.out / f"{phase.name}.pt", 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        start = state["step"]
        if start < phase.steps:
            optimizer.load_state_dict(state["optimizer"])
    curve: dict[str, list[float]] = defaultdict(list)
    began = time.perf_counter()
    for step in tqdm(range(start, phase.steps), initial=start, total=phase.steps, desc=phase.name, disable=not progress):
        done = step / phase.steps
        for group, (_, share) in zip(optimizer.param_groups, phase.parameters, strict=True):
            group["lr"] = share * config.learning_rate * min(1, (step + 1) / 100) * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
        loss, facts = phase.loss(np.random.default_rng([config.seed, phase.number, step]), done)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([parameter for some, _ in phase.parameters for parameter in some], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        for name, value in facts.items():
            curve[name].append(value)
        if (step + 1) % 50 == 0:
            row = {"step": step + 1, "seconds": round(time.perf_counter() - began, 1)}
            row |= {name: round(float(np.nanmean(values)), 4) for name, values in sorted(curve.items())}
            with (config.out / f"{phase.name}.jsonl").open("a") as out:
                out.write(json.dumps(row) + "\n")
            curve.clear()
        if (step + 1) % config.save_every == 0 or step + 1 == phase.steps:
            draft = file.with_suffix(".part")
            state = {"model": model.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, draft)
            draft.replace(file)
