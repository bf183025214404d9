"""A vision tower over pictures of many sizes in a few batched calls.

Without flash attention, transformers makes one attention call per window and picture: hundreds of
tiny calls per layer. Here windows of equal length share one call, with the same result.
"""

from types import MethodType
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

from lfpc.policies.qwen.architectures import architecture_of


def speed_up_vision(model: Any) -> None:
    """Make every attention of the model's tower use `grouped_attention`, except with flash
    attention. Weights and results are unchanged.
    """
    attention = architecture_of(model).attention
    for module in model.model.visual.modules():
        if isinstance(module, attention) and not str(module.config._attn_implementation).startswith(
            "flash"
        ):
            module.forward = MethodType(_forward, module)


def grouped_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: list[int]
) -> torch.Tensor:
    """Full attention within consecutive segments.

    Args:
        q, k, v: (tokens, heads, head_dim).
        lengths: lengths of the segments in order; their sum is tokens.
    Returns:
        (tokens, heads, head_dim).
    """
    if len(set(lengths)) == 1:
        return _same_length(q, k, v, len(lengths))
    starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
    out = torch.empty_like(q)
    for length in sorted(set(lengths)):
        first = starts[[i for i, n in enumerate(lengths) if n == length]]
        index = (first[:, None] + torch.arange(length)).flatten().to(q.device)
        out = out.index_copy(0, index, _same_length(q[index], k[index], v[index], len(first)))
    return out


def _same_length(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, count: int) -> torch.Tensor:
    shape = (count, -1, *q.shape[1:])
    a, b, c = (x.reshape(shape).transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(a, b, c).transpose(1, 2).reshape(q.shape)


def _forward(
    self: Any,
    hidden_states: torch.Tensor,
    cu_seqlens: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    **_: Any,
) -> torch.Tensor:
    n = hidden_states.shape[0]
    q, k, v = self.qkv(hidden_states).reshape(n, 3, self.num_heads, -1).unbind(1)
    q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
    out = grouped_attention(q, k, v, cu_seqlens.diff().tolist())
    return self.proj(out.reshape(n, -1))
