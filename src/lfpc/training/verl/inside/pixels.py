"""Pictures from workers to training ranks, packed as bytes of one frame.

verl sends normalised float32 patches of two equal frames: 18,816 bytes per visual token and
rollout. Bytes of one frame take 2,352. The tower's input, computed from them on the rank, equals
that of transformers' processor.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import verl.models.transformers.qwen2_vl as qwen2_vl
from PIL import Image
from torch import Tensor
from verl.utils.transformers_compat import unpack_visual_output

from lfpc.policies.qwen.vision import MEAN, STD, in_patches

_ORIGINAL = qwen2_vl._get_input_embeds


def pack(images: Sequence[Image.Image], *, patch: int = 14, merge: int = 2) -> dict[str, Tensor]:
    """Pictures as patches of bytes.

    Args:
        images: RGB, sides multiples of `patch * merge`.
    Returns:
        pixel_values: (patches, 3 * patch * patch) uint8, blocks of `merge` x `merge` patches
            together, pictures one after the other.
        image_grid_thw: (pictures, 3) int64, frames, rows and columns in patches.
    """
    packed = [in_patches(np.asarray(image.convert("RGB")), patch, merge) for image in images]
    grids = [(1, image.height // patch, image.width // patch) for image in images]
    return {"pixel_values": torch.cat(packed), "image_grid_thw": torch.tensor(grids)}


def unpack(patches: Tensor, *, frames: int = 2) -> Tensor:
    """(patches, 3 * frames * patch * patch) float32 normalised patches of equal frames, from bytes
    of one.
    """
    count = len(patches)
    scale = torch.tensor([1 / (255 * s) for s in STD], device=patches.device)[None, :, None]
    shift = torch.tensor([m / s for m, s in zip(MEAN, STD, strict=True)], device=patches.device)[
        None, :, None
    ]
    channels = patches.reshape(count, 3, -1).float() * scale - shift
    return channels[:, :, None].expand(-1, -1, frames, -1).reshape(count, -1)


def accept_bytes() -> None:
    """Patch verl's Qwen2.5-VL to accept packed pictures, and micro-batches without pictures.

    verl replaces a failed rollout by text, and a micro-batch of such texts alone fails in verl
    0.9.1 with transformers 5 ('BaseModelOutputWithPooling' object has no attribute 'mean').
    """
    if qwen2_vl._get_input_embeds is _ORIGINAL:
        qwen2_vl._get_input_embeds = _taking_bytes(_ORIGINAL)


def _taking_bytes(embeds_of: Any) -> Any:
    def get_input_embeds(
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        *grids: Tensor | None,
        **more: Any,
    ) -> Any:
        if pixel_values is not None and pixel_values.dtype == torch.uint8:
            pixel_values = unpack(pixel_values)
        if pixel_values is not None or pixel_values_videos is not None:
            return embeds_of(
                model, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids, **more
            )
        embeds = model.get_input_embeddings()(input_ids)
        # the tower computes on a blank picture all the same, so that every rank takes part in
        # gathering its weights
        blank = torch.zeros((16, 3 * 2 * 14 * 14), dtype=embeds.dtype, device=embeds.device)
        features, _ = unpack_visual_output(
            model.visual(blank, grid_thw=torch.tensor([[1, 4, 4]], device=embeds.device))
        )
        return embeds + 0.0 * features.mean(), attention_mask

    return get_input_embeds
