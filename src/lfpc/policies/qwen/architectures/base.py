"""What differs between architectures: positions, the vision tower, and how its features enter the
language model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lfpc.policies.qwen.encode import Positions, rope_positions

Grid = tuple[int, int, int]
"""(1, rows, columns) of a picture in patches."""


def as_embeddings(embeds: Tensor, places: Tensor, features: Tensor) -> dict[str, Any]:
    """Features in place of the embeddings of their visual tokens."""
    return {"inputs_embeds": embeds.masked_scatter(places[..., None], features.to(embeds.dtype))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One `model_type` of transformers, with a tower at `model.model.visual` and a language model
    at `model.model.language_model`.
    """

    model_type: str
    """`model_type` of its config.json."""
    attention: type
    """Attention layers of its tower; see `speed_up_vision`."""
    tower: Callable[[Any, Tensor, Sequence[Grid]], Tensor]
    """(tower module, (patches, 3 * patch * patch) pixels of still pictures, their grids) -> (visual
    tokens, width) features in reading order: all that the language model gets of a token."""
    inputs: Callable[[Tensor, Tensor, Tensor], dict[str, Any]] = as_embeddings
    """((rows, length, hidden) embeddings, (rows, length) bool places of visual tokens, (visual
    tokens, width) features) -> arguments of the language model."""
    positions: Positions = rope_positions
    """Positions of the rotary embedding."""


def embedded_patches(visual: Any, pixels: Tensor) -> Tensor:
    """(patches, hidden) embeddings of a tower's patches.

    The released towers convolve two equal frames of a still picture. One frame with the sum of the
    two kernels gives the same numbers at half the work.
    """
    proj = visual.patch_embed.proj
    return F.linear(pixels.to(proj.weight.dtype), proj.weight.sum(2).flatten(1), proj.bias)


def rotary_angles(visual: Any, positions: Tensor) -> Tensor:
    """(patches, head width) angles of the rotary embedding at (patches, 2) rows and columns.
    Computed from the module's frequencies, because its result depends on the version of
    transformers.
    """
    angles = (positions[..., None].float() * visual.rotary_pos_emb.inv_freq.float()).flatten(1)
    return angles.repeat(1, 2)
