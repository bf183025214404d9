"""A checkpoint of adapters as a plain checkpoint."""

from pathlib import Path
from typing import Any

import torch

from lfpc.errors import CheckpointError
from lfpc.policies.bases import base_of
from lfpc.policies.qwen.adapters import applied_adapters, merge_adapters
from lfpc.policies.qwen.checkpoint import dtype_of, load_checkpoint, save_checkpoint
from lfpc.policies.qwen.sums import check_sums
from lfpc.policies.settings import read_settings

MERGED_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""Largest difference of a logit after merging, in standard deviations of the logits, by the
precision of the weights, to which a merged weight is rounded."""


def merge(adapters: Path, out: Path) -> Path:
    """Write the model of a checkpoint of adapters, merged, to the folder `out`, in the precision of
    the weights that they change. Works on the CPU, without a second copy of the weights.

    Raises:
        CheckpointError: no checkpoint of adapters, `out` exists, the merged weights compute other
            logits than the adapters, or the disk refuses.
    """
    base = base_of(adapters)
    if base is None:
        raise CheckpointError(f"{adapters}: no adapters in it; a plain checkpoint needs no merging")
    if out.exists():
        raise CheckpointError(f"{out} exists already; give another --out")
    check_sums(adapters)
    dtype = dtype_of(base)
    model, tokenizer = load_checkpoint(base, dtype=dtype)
    with applied_adapters(model, adapters):
        before = _logits(model)
    merge_adapters(model, adapters)
    difference = float((_logits(model) - before).abs().max() / before.std())
    if not difference < MERGED_DIFFERENCE[dtype]:
        raise CheckpointError(
            f"{adapters}: the merged weights compute other logits than the adapters (by "
            f"{difference:.2g} standard deviations); no checkpoint is written"
        )
    return save_checkpoint(model, tokenizer, out, source=base, settings=read_settings(adapters))


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    """Logits of a short made-up conversation with a picture of 4 visual tokens."""
    config = model.config
    vision = config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    side = 2 * vision.spatial_merge_size
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 256, (8,), generator=generator).tolist()
    ids = [*words, config.vision_start_token_id, *[config.image_token_id] * 4]
    ids += [config.vision_end_token_id, *words]
    tokens = torch.tensor([ids], device=model.device)
    return model(
        input_ids=tokens,
        mm_token_type_ids=(tokens == config.image_token_id).int(),
        pixel_values=torch.randn(side * side, patch, generator=generator).to(
            model.device, model.dtype
        ),
        image_grid_thw=torch.tensor([[1, side, side]], device=model.device),
    ).logits.float()
