"""Qwen3-VL (dense): learned patch positions, and features of several tower layers (deepstack).

A visual token's features are those of the last layer, which replace its embedding, and those of
`deepstack_visual_indexes`, which are added to the states after the first language layers. They lie
side by side in one row. The interleaved M-RoPE is transformers' own; positions are Qwen2.5-VL's.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionAttention
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids

from lfpc.policies.qwen.architectures.base import (
    Architecture,
    Grid,
    as_embeddings,
    embedded_patches,
    rotary_angles,
)


def tower(visual: Any, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
    """The vision tower on still pictures; see `Architecture.tower`. The width is that of the
    language model times 1 + deepstack layers.

    Source: Qwen3VLVisionModel.forward of transformers; a test checks equality.
    """
    grid = torch.tensor(grids, device=pixels.device)
    lengths = get_vision_cu_seqlens(grid)
    hidden = embedded_patches(visual, pixels)
    hidden = hidden + patch_positions(visual, grids).to(hidden.dtype)
    angles = rotary_angles(visual, get_vision_position_ids(grid, visual.spatial_merge_size))
    rotary = angles.cos(), angles.sin()
    mergers = dict(zip(visual.deepstack_visual_indexes, visual.deepstack_merger_list, strict=True))
    levels: list[Tensor] = []
    for number, block in enumerate(visual.blocks):
        hidden = block(hidden, cu_seqlens=lengths, position_embeddings=rotary)
        if number in mergers:
            levels.append(mergers[number](hidden))
    return torch.cat([visual.merger(hidden), *levels], dim=-1)


def patch_positions(visual: Any, grids: Sequence[Grid]) -> Tensor:
    """(patches, hidden) learned positions, interpolated from the square table to every picture's
    grid, blocks of merged patches together.
    """
    table = visual.pos_embed.weight.float()
    side = visual.num_grid_per_side
    square = table.T.reshape(1, -1, side, side)
    merge = visual.spatial_merge_size

    def of(rows: int, columns: int) -> Tensor:
        resized = F.interpolate(square, (rows, columns), mode="bilinear", align_corners=True)[0]
        blocks = resized.reshape(-1, rows // merge, merge, columns // merge, merge)
        return blocks.permute(1, 3, 2, 4, 0).reshape(rows * columns, -1)

    known = {grid: of(*grid[1:]) for grid in dict.fromkeys(grids)}
    return torch.cat([known[grid] for grid in grids])


def inputs(embeds: Tensor, places: Tensor, features: Tensor) -> dict[str, Any]:
    """The last layer's features as embeddings, the others for the first language layers."""
    last, *levels = features.split(embeds.shape[-1], dim=-1)
    return {
        **as_embeddings(embeds, places, last),
        "visual_pos_masks": places,
        "deepstack_visual_embeds": levels,
    }


QWEN3_VL = Architecture(
    model_type="qwen3_vl", attention=Qwen3VLVisionAttention, tower=tower, inputs=inputs
)
