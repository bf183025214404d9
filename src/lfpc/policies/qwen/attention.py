"""Attention over padded batches without a mask of rows x length squared.

A mask of at most `MASK_ELEMENTS` is built once and shared by all layers. Larger batches attend a
piece of the queries at a time, with a mask of that piece, which is computed again in the backward
pass.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

UNSEEN = -1e30
"""Added to the score of a masked token; finite in float32 and in bfloat16."""
MASK_ELEMENTS = 2**26
"""Maximum elements of a mask: 128 MiB in bfloat16."""
PIECEWISE = "lfpc_piecewise"
"""Name of this attention in transformers."""


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which tokens of a batch are visible: those that are no padding, up to the query itself."""

    visible: Tensor
    """(rows, queries) bool: False for padding."""
    before: Tensor | None
    """(rows, tokens) bool of the cached tokens before the queries; None: there are none."""

    @property
    def rows_by_keys(self) -> int:
        """Elements of the mask of one query of every row."""
        cached = 0 if self.before is None else self.before.shape[1]
        return len(self.visible) * (self.visible.shape[1] + cached)

    def mask(self, start: int, end: int, dtype: torch.dtype) -> Tensor:
        """(rows, 1, end - start, keys) to add to the scores of the queries from `start` to
        `end`.
        """
        columns = torch.arange(self.visible.shape[1], device=self.visible.device)
        seen = self.visible[:, None, :] & (columns <= columns[start:end, None])
        if self.before is not None:
            seen = torch.cat([self.before[:, None, :].expand(-1, end - start, -1), seen], dim=2)
        return additive(seen, dtype)[:, None]


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen`, else `UNSEEN` (not -inf: a row of padding sees nothing, and would become
    NaN).
    """
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, UNSEEN)


def attention_mask(
    model: Any, visible: Tensor, before: Tensor | None, dtype: torch.dtype
) -> Tensor | Visibility | None:
    """The mask for the layers of `model`: None if plain causal attention is equal, a tensor of
    (rows, 1, queries, keys), or for a large batch what its pieces are built from.

    Args:
        model: the language model.
        visible: (rows, queries) bool: False for padding.
        before: (rows, tokens) bool of the cached tokens.
        dtype: of the scores.
    """
    if before is None and bool(visible.all()):
        return None
    found = Visibility(visible, before)
    length = visible.shape[1]
    if found.rows_by_keys * length <= MASK_ELEMENTS:
        return found.mask(0, length, dtype)
    if model.config._attn_implementation != PIECEWISE:
        model.config._attn_implementation = PIECEWISE
    return found


def _forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | Visibility | None,
    **options: Any,
) -> tuple[Tensor, None]:
    if not isinstance(attention_mask, Visibility):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    seen = attention_mask

    def piece(query: Tensor, key: Tensor, value: Tensor, start: int, end: int) -> Tensor:
        mask = seen.mask(start, end, query.dtype)
        return sdpa_attention_forward(module, query, key, value, mask, **options)[0]

    length = query.shape[2]
    step = max(1, MASK_ELEMENTS // seen.rows_by_keys)
    outputs: list[Tensor] = []
    for start in range(0, length, step):
        end = min(length, start + step)
        arguments = (query[:, :, start:end], key, value, start, end)
        if torch.is_grad_enabled():
            found = checkpoint(piece, *arguments, use_reentrant=False, preserve_rng_state=False)
            assert isinstance(found, Tensor)
        else:
            found = piece(*arguments)
        outputs.append(found)
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(PIECEWISE, _forward)
AttentionMaskInterface.register(PIECEWISE, sdpa_mask)
