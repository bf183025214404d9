"""Attention over padded batches without a mask of rows x length squared.

A mask of at most `MASK_ELEMENTS` is built once and shared by all layers. Larger batches attend a
piece of the queries at a time, with a mask of that piece, which is computed again in the backward
pass.
"""

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


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `seen`, else `UNSEEN` (not -inf: a row of padding sees nothing, and would become
    NaN).
    """
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, UNSEEN)


def attention_mask(
    model: Any, visible: Tensor, before: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """The mask for the layers of `model`: None if plain causal attention is equal; (rows, 1,
    queries, keys) to add to the scores; or, beyond `MASK_ELEMENTS`, (rows, 1, 1, keys) bool, which
    says for all queries which keys are no padding.

    Args:
        model: the language model.
        visible: (rows, queries) bool: False for padding.
        before: (rows, tokens) bool of the cached tokens before the queries; None: there are none.
        dtype: of the scores.
    """
    if before is None and bool(visible.all()):
        return None
    length = visible.shape[1]
    keys = visible if before is None else torch.cat([before, visible], dim=1)
    if keys.numel() * length <= MASK_ELEMENTS:
        return _mask(keys[:, None, None], length, 0, length, dtype)
    if model.config._attn_implementation != PIECEWISE:
        model.config._attn_implementation = PIECEWISE
    return keys[:, None, None]


def _mask(keys: Tensor, length: int, start: int, end: int, dtype: torch.dtype) -> Tensor:
    """(rows, 1, end - start, keys) to add to the scores of the queries from `start` to `end`, of
    `length` queries that are the last keys themselves.
    """
    columns = torch.arange(keys.shape[3], device=keys.device)
    own = columns[len(columns) - length :][start:end]
    return additive(keys & (columns <= own[:, None]), dtype)


def _forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    keys, length = attention_mask, query.shape[2]
    if keys is None or keys.dtype != torch.bool or keys.shape[2] == length:
        return sdpa_attention_forward(module, query, key, value, keys, **options)
    kept: Tensor = keys

    def piece(query: Tensor, key: Tensor, value: Tensor, start: int) -> Tensor:
        mask = _mask(kept, length, start, start + query.shape[2], query.dtype)
        return sdpa_attention_forward(module, query, key, value, mask, **options)[0]

    size = max(1, MASK_ELEMENTS // kept.numel())
    outputs: list[Tensor] = []
    for number, part in enumerate(query.split(size, dim=2)):
        if torch.is_grad_enabled():
            found: Any = checkpoint(
                piece,
                part,
                key,
                value,
                number * size,
                use_reentrant=False,
                preserve_rng_state=False,
            )
        else:
            found = piece(part, key, value, number * size)
        outputs.append(found)
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(PIECEWISE, _forward)
AttentionMaskInterface.register(PIECEWISE, sdpa_mask)
