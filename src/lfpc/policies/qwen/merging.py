"""A checkpoint of adapters as a plain checkpoint.

A merged weight is rounded to the precision of the base, so a merged layer computes other outputs
than the layer with its adapters beside it. How far they may differ follows from the rounding:

    W' = fl(W + s B A)                              s: alpha / rank, r: rank
    |W' x - (W x + s B A x)| <= (u + v) |W'| |x| + (r + 1) v s |B| |A| |x|

for every output, where u is the unit roundoff of W' (2^-8 for bfloat16, 2^-24 for float32) and v
that of float32, in which product and sum are computed. Right merges thus never fail.

Source: the standard model of floating-point arithmetic (Higham, Accuracy and Stability of
Numerical Algorithms, sections 2.2 and 3.5).
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lfpc.errors import CheckpointError
from lfpc.policies.bases import base_of
from lfpc.policies.qwen.adapters import each_adapter, merge_adapters
from lfpc.policies.qwen.checkpoint import dtype_of, load_checkpoint, save_checkpoint
from lfpc.policies.qwen.sums import check_sums
from lfpc.policies.settings import read_settings, there

FLOAT32 = torch.finfo(torch.float32).eps / 2
"""Unit roundoff of float32."""


def merge(adapters: Path, out: Path) -> Path:
    """Write the model of a checkpoint of adapters, merged, to the folder `out`, in the precision of
    the weights that they change. Works on the CPU, without a second copy of the weights.

    Raises:
        CheckpointError: no checkpoint of adapters, `out` exists, a merged layer computes other
            outputs than with its adapters, or the disk refuses.
    """
    base = base_of(there(adapters))
    if base is None:
        raise CheckpointError(f"{adapters}: no adapters in it; a plain checkpoint needs no merging")
    if out.exists():
        raise CheckpointError(f"{out} exists already; delete it or name another --out")
    check_sums(adapters)
    model, tokenizer = load_checkpoint(base, dtype=dtype_of(base))
    wanted = adapted_outputs(model, adapters)
    merge_adapters(model, adapters)
    for name, outputs in wanted.items():
        excess = outputs.excess()
        if not excess <= 1:
            raise CheckpointError(
                f"{adapters}: the merged weights compute something else than the adapters (in the "
                f"layer {name}, {excess:.2g} times what rounding explains); no checkpoint is "
                f"written"
            )
    return save_checkpoint(model, tokenizer, out, source=base, settings=read_settings(adapters))


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs of an adapted layer for some inputs, without its bias, in float64."""

    layer: Any
    inputs: Tensor
    """(tokens, inputs)."""
    wanted: Tensor
    """(tokens, outputs) with the adapters."""
    slack: Tensor
    """(tokens, outputs): bound of the error of the adapters' product in float32."""

    @torch.no_grad()
    def excess(self) -> float:
        """Largest error of the layer's outputs now, as a share of the bound of the rounding."""
        weight = self.layer.weight.double()
        roundoff = torch.finfo(self.layer.weight.dtype).eps / 2 + FLOAT32
        bound = roundoff * (self.inputs.abs() @ weight.abs().T) + self.slack
        error = (self.inputs @ weight.T - self.wanted).abs()
        return float((error / bound.clamp_min(torch.finfo(torch.float32).tiny)).max())


@torch.no_grad()
def adapted_outputs(model: Any, adapters: Path) -> dict[str, Outputs]:
    """Outputs of every adapted layer of `model`, with the adapters in the folder `adapters` beside
    its weights, for a short made-up conversation with a picture.
    """
    found: dict[str, Outputs] = {}

    def adding(name: str, low: Tensor, high: Tensor) -> Callable[..., Tensor]:
        a, b = low.double(), high.double()
        v = (len(a) + 1) * FLOAT32

        def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0].flatten(0, -2).double()
            added = x @ a.T @ b.T
            slack = v * (x.abs() @ a.abs().T @ b.abs().T)
            found[name] = Outputs(layer, x, x @ layer.weight.double().T + added, slack)
            return (output.double() + added.view(output.shape)).to(output.dtype)

        return add

    with ExitStack() as stack:
        for name, layer, low, high in each_adapter(model, adapters):
            stack.callback(layer.register_forward_hook(adding(name, low, high)).remove)
        _read_conversation(model)
    return found


def _read_conversation(model: Any) -> None:
    """Read a short made-up conversation with a picture of 4 visual tokens."""
    config = model.config
    vision = config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    side = 2 * vision.spatial_merge_size
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 256, (8,), generator=generator).tolist()
    ids = [*words, config.vision_start_token_id, *[config.image_token_id] * 4]
    ids += [config.vision_end_token_id, *words]
    tokens = torch.tensor([ids], device=model.device)
    model(
        input_ids=tokens,
        # any would do; given, because in a process that trained with verl its forward asks for them
        position_ids=torch.arange(len(ids), device=model.device).expand(4, 1, -1),
        mm_token_type_ids=(tokens == config.image_token_id).int(),
        pixel_values=torch.randn(side * side, patch, generator=generator).to(
            model.device, model.dtype
        ),
        image_grid_thw=torch.tensor([[1, side, side]], device=model.device),
    )
