"""Pictures from workers to training ranks, packed as bytes of one frame.

verl sends normalised float32 patches of two equal frames: 18,816 bytes per visual token and
rollout. Bytes of one frame take 2,352. The tower's input, computed from them on the rank, equals
that of transformers' processor.
"""

from collections.abc import Sequence
from dataclasses import astuple
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import verl.models.transformers.qwen2_vl as qwen2_vl
import verl.models.transformers.qwen3_vl as qwen3_vl
from PIL import Image
from torch import Tensor
from verl.utils.transformers_compat import unpack_visual_output

from lfpc.policies.qwen.folder import normalisation
from lfpc.policies.qwen.vision import Normalisation, in_patches

_QWEN2 = qwen2_vl._get_input_embeds
_QWEN3 = qwen3_vl._get_input_embeds


def pack(images: Sequence[Image.Image], *, patch: int, merge: int) -> dict[str, Tensor]:
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


def unpack(patches: Tensor, normalised: Normalisation, *, frames: int = 2) -> Tensor:
    """(patches, 3 * frames * patch * patch) float32 normalised patches of equal frames, from bytes
    of one.
    """
    count = len(patches)
    mean, std = (torch.tensor(one, device=patches.device) for one in astuple(normalised))
    channels = patches.reshape(count, 3, -1).float()
    channels = channels * (1 / (255 * std))[None, :, None] - (mean / std)[None, :, None]
    return channels[:, :, None].expand(-1, -1, frames, -1).reshape(count, -1)


def accept_bytes() -> None:
    """Patch verl's Qwen2.5-VL and Qwen3-VL to accept packed pictures, and Qwen2.5-VL to accept
    micro-batches without pictures.

    verl replaces a failed rollout by text, and a micro-batch of such texts alone fails in verl
    0.9.1 with transformers 5 ('BaseModelOutputWithPooling' object has no attribute 'mean').
    """
    if qwen2_vl._get_input_embeds is _QWEN2:
        qwen2_vl._get_input_embeds = _taking_bytes(_QWEN2, blank=_blank)
        qwen3_vl._get_input_embeds = _taking_bytes(_QWEN3)


def _taking_bytes(embeds_of: Any, blank: Any = None) -> Any:
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
            pixel_values = unpack(pixel_values, _normalisation(model.config.name_or_path))
        if blank is not None and pixel_values is None and pixel_values_videos is None:
            return blank(model, input_ids), attention_mask
        return embeds_of(
            model, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids, **more
        )

    return get_input_embeds


def _blank(model: Any, input_ids: Tensor) -> Tensor:
    """Embeddings of text. The tower computes on a blank picture all the same, so that every rank
    takes part in gathering its weights.
    """
    embeds = model.get_input_embeddings()(input_ids)
    blank = torch.zeros((16, 3 * 2 * 14 * 14), dtype=embeds.dtype, device=embeds.device)
    features, _ = unpack_visual_output(
        model.visual(blank, grid_thw=torch.tensor([[1, 4, 4]], device=embeds.device))
    )
    return embeds + 0.0 * features.mean()


@lru_cache(maxsize=2)
def _normalisation(folder: str) -> Normalisation:
    return normalisation(Path(folder))
