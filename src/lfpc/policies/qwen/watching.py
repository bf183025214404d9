"""Attention to the first view, without a matrix of length x length.

The conversation up to the view is read as always. What follows it, the question, goes through the
eager attention of transformers, which returns its weights: (heads, question, length) a layer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from lfpc.policies.config import ViewAttention
from lfpc.policies.qwen.encode import Encoded
from lfpc.policies.qwen.language import Prefixes, compute_prefixes, prefix_key, read

EAGER = "eager"
"""Name of the attention in transformers that returns its weights."""
QUERIES = 512
"""Tokens of a question at most, the last ones: a bound of memory, 0.9 GB in float32 for 28 heads
and 16,384 visual tokens."""


def view_attention(
    model: Any,
    rows: Sequence[Encoded],
    places: Sequence[np.ndarray],
    features: Sequence[Sequence[Tensor]],
    layers: Sequence[int],
) -> list[ViewAttention]:
    """Attention of each conversation's question, and of its last token, to its first view.

        a_ij = mean over heads of softmax_j(q_i k_j / sqrt(width)),   sum_j a_ij = 1

    Args:
        model: a model of a supported architecture.
        rows: first prompts, each with the beginning of a reply.
        places: per row, (rows, columns) places of the first view's tokens.
        features: per row, the features of its view.
        layers: numbers of the layers, the first is 0.
    """
    parts = [
        replace(row, prefix=max(int(place.max()) + 1, row.replies[0][0] - QUERIES))
        for row, place in zip(rows, places, strict=True)
    ]
    prefixes: Prefixes = {}
    compute_prefixes(model, parts, features, [prefix_key(row) for row in parts], prefixes)
    found: list[ViewAttention] = []
    for row, place, own in zip(parts, places, features, strict=True):  # one by one: less memory
        with _weights(model.model.language_model, layers) as weights:
            visible = read(model, [row], [own], prefixes=prefixes).visible[0]
        shown = np.stack([weights[n][:, visible].cpu().numpy()[:, place] for n in layers])
        question = row.replies[0][0] - row.prefix
        found.append(ViewAttention(shown[:, :question].mean(axis=1), shown[:, -1]))
    return found


@contextmanager
def _weights(language: Any, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """The weights of a forward of one row in this block, by layer: (queries, keys) float32."""
    found: dict[int, Tensor] = {}

    def keep(module: Any, _: Any, output: tuple[Tensor, Tensor]) -> None:
        found[module.layer_idx] = output[1][0].float().mean(dim=0)

    hooks = [language.layers[n].self_attn.register_forward_hook(keep) for n in set(layers)]
    usual, language.config._attn_implementation = language.config._attn_implementation, EAGER
    try:
        yield found
    finally:
        language.config._attn_implementation = usual
        for hook in hooks:
            hook.remove()
