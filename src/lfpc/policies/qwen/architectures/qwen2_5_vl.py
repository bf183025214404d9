"""Qwen2.5-VL: window attention in the tower, its features in place of embeddings."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionAttention
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from lfpc.policies.qwen.architectures.base import (
    Architecture,
    Grid,
    embedded_patches,
    rotary_angles,
)


def tower(visual: Any, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
    """The vision tower on still pictures; see `Architecture.tower`.

    Source: Qwen2_5_VisionTransformerPretrainedModel.forward of transformers; a test checks
    equality.
    """
    grid = torch.tensor(grids, device=pixels.device)
    unit = visual.spatial_merge_unit
    count = len(pixels)
    order, window_lengths = get_vision_window_index(
        grid,
        spatial_merge_size=visual.spatial_merge_size,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
    picture_lengths = get_vision_cu_seqlens(grid)

    def windowed(rows: Tensor) -> Tensor:
        return rows.reshape(count // unit, unit, -1)[order].reshape(count, -1)

    hidden = windowed(embedded_patches(visual, pixels))
    angles = windowed(
        rotary_angles(visual, get_vision_position_ids(grid, visual.spatial_merge_size))
    )
    rotary = angles.cos(), angles.sin()
    for number, block in enumerate(visual.blocks):
        lengths = picture_lengths if number in visual.fullatt_block_indexes else window_lengths
        hidden = block(hidden, cu_seqlens=lengths, position_embeddings=rotary)
    return visual.merger(hidden)[torch.argsort(order)]


QWEN2_5_VL = Architecture(model_type="qwen2_5_vl", attention=Qwen2_5_VLVisionAttention, tower=tower)
