"""Activation checkpointing for layers that write keys and values to a cache.

Each layer keeps its input, and computes the rest again in the backward pass. transformers' own
switch does not allow a cache.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lfpc.policies.qwen.language import KeyValues


@contextmanager
def recomputed(model: Any) -> Iterator[None]:
    """Checkpoint every layer of language model and vision tower in this block, which includes the
    backward pass. Results and gradients are unchanged.
    """
    forwards: list[tuple[Any, Callable[..., Any]]] = [
        *((layer, _language_layer) for layer in model.model.language_model.layers),
        *((block, _vision_block) for block in model.model.visual.blocks),
    ]
    for module, forward in forwards:
        module.forward = partial(forward, module, module.forward)
    try:
        yield
    finally:
        for module, _ in forwards:
            del module.forward


def _language_layer(
    layer: Any,
    forward: Callable[..., Tensor],
    hidden: Tensor,
    *,
    past_key_values: KeyValues,
    **options: Any,
) -> Tensor:
    number = layer.self_attn.layer_idx

    def run(hidden: Tensor, *past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cache = _OneLayer(past)
        return forward(hidden, past_key_values=cache, **options), *cache.found

    past = past_key_values.layer(number)
    made = checkpoint(run, hidden, *past, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(made, tuple)
    past_key_values.put(number, made[1], made[2])
    return made[0]


def _vision_block(
    block: Any, forward: Callable[..., Tensor], hidden: Tensor, **options: Any
) -> Tensor:
    run = partial(forward, **options)
    made = checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(made, Tensor)
    return made


class _OneLayer:
    """Cache of one layer's call."""

    def __init__(self, past: tuple[Tensor, ...]) -> None:
        self.cache = KeyValues([(past[0], past[1])] if past else [])

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        self.found = self.cache.update(keys, values, 0)
        return self.found
