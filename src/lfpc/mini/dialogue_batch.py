"""Dialogue rows as a batch for the model, and its loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lfpc.mini.dense import DenseHeads
from lfpc.mini.dialogues import DialogueRow, PixelBox
from lfpc.mini.pictures import hit_rate, patches
from lfpc.mini.scenes import COLORS, EASY, SHAPES
from lfpc.policies.qwen.architectures.qwen2_5_vl import tower
from lfpc.policies.qwen.encode import rope_positions

FULL = EASY.side
"""Side of the picture at full budget, in pixels."""
MENTION_WEIGHT = 5.0
CORNER_WEIGHT = 0.3
"""Loss weights of the distance of a mentioned thing's corners, in fractions of `FULL`, and of the
cross-entropy of their numbers."""


@dataclass(frozen=True, slots=True)
class DialogueBatch:
    """A batch of rows for the model, padded on the right (attention is causal)."""

    ids: torch.Tensor
    """(rows, length) int64."""
    labels: torch.Tensor
    """(rows, length) int64; -100 at untrained tokens."""
    positions: torch.Tensor
    """(3, rows, length) int64, for the rotary embedding."""
    pixels: torch.Tensor
    """(patches, 588) float32 of all pictures, row after row."""
    grids: list[tuple[int, int, int]]
    """(1, rows, columns) in patches of every picture."""
    mentions: torch.Tensor
    """(mentions, 2): row and column of a known thing's colour, which names it: every colour is
    there once."""
    mentioned_marks: torch.Tensor
    """(mentions,): class of its mark, -1 if it cannot be read."""
    mentioned_boxes: torch.Tensor
    """(mentions, 4) int64: its box, in pixels of the first picture."""


def collate(
    rows: list[DialogueRow], encode: Callable[[str], list[int]], image_id: int, pad_id: int
) -> DialogueBatch:
    """Rows to one batch."""
    ids = []
    labels = []
    positions = []
    pixels = []
    grids = []
    names = {
        (encode(color)[0], encode(f" {shape}")[0]): f"{color} {shape}"
        for color in COLORS
        for shape in SHAPES
    }
    mentions: list[tuple[int, int, int, PixelBox]] = []
    for number, row in enumerate(rows):
        x: list[int] = []
        y: list[int] = []
        its_grids = []
        for piece, trained in row.segments:
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
        for place in range(1, len(x)):
            if (name := names.get((x[place - 1], x[place]))) in row.known:
                mentions.append((number, place - 1, *row.known[name]))
        positions.append(rope_positions(np.array(x) == image_id, its_grids))
        grids += [(1, 2 * high, 2 * wide) for high, wide in its_grids]
    longest = max(map(len, ids))
    padded = np.stack(
        [np.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in positions], axis=1
    )
    return DialogueBatch(
        ids=torch.tensor([x + [pad_id] * (longest - len(x)) for x in ids]),
        labels=torch.tensor([y + [-100] * (longest - len(y)) for y in labels]),
        positions=torch.from_numpy(padded),
        pixels=torch.cat(pixels),
        grids=grids,
        mentions=torch.tensor([mention[:2] for mention in mentions]).reshape(-1, 2),
        mentioned_marks=torch.tensor([mention[2] for mention in mentions], dtype=torch.long),
        mentioned_boxes=torch.tensor(
            [mention[3] for mention in mentions], dtype=torch.long
        ).reshape(-1, 4),
    )


def dialogue_loss(
    model: Any, heads: DenseHeads, kind: str, batch: DialogueBatch, marks: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """Cross-entropy of the trained tokens, with auxiliary losses on mentioned things after half of
    the layers.

    Facts: loss by kind of row, how often a mark is named rightly (in the answer, at the mention),
    and the distance of corners.
    """
    features = tower(model.model.visual, batch.pixels, batch.grids)
    embeds = model.get_input_embeddings()(batch.ids)
    embeds = embeds.masked_scatter((batch.ids == model.config.image_token_id)[..., None], features)
    out = model.model.language_model(
        inputs_embeds=embeds,
        position_ids=batch.positions,
        use_cache=False,
        output_hidden_states=True,
    )
    labels = batch.labels[:, 1:]
    chosen = labels != -100
    logits = model.lm_head(out.last_hidden_state[:, :-1][chosen])
    wanted = labels[chosen]
    loss = F.cross_entropy(logits, wanted)
    facts = {f"loss_{kind}": loss.item()}
    named = torch.isin(wanted, marks)
    if named.any():
        facts[f"mark_{kind}"] = hit_rate(logits[named], wanted[named])
    if len(batch.mentions):
        states = out.hidden_states[len(model.model.language_model.layers) // 2][
            batch.mentions[:, 0], batch.mentions[:, 1]
        ]
        table = model.get_input_embeddings().weight
        gap = (heads.mentioned_box(states) - batch.mentioned_boxes / FULL).abs().mean()
        corners = F.cross_entropy(
            heads.mentioned_corners(states, table).flatten(0, 1), batch.mentioned_boxes.flatten()
        )
        loss = loss + MENTION_WEIGHT * gap + CORNER_WEIGHT * corners
        facts[f"mention_box_{kind}"] = gap.item()
        facts[f"mention_corners_{kind}"] = corners.item()
        if (readable := batch.mentioned_marks >= 0).any():
            guesses = heads.mentioned_mark(states[readable], table)
            loss = loss + 0.5 * F.cross_entropy(guesses, batch.mentioned_marks[readable])
            facts[f"mention_mark_{kind}"] = hit_rate(guesses, batch.mentioned_marks[readable])
    return loss, facts
