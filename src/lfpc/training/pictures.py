"""The pictures of an update: their features as leaves, and the gradients back into the tower.

If all pictures fit into one pass of the vision tower, its activations are kept for the backward
pass. Otherwise features are computed without them, piece by piece, and once more with them when the
gradients of all uses are known: memory is that of one piece, whatever the number of pictures.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from lfpc.images import View, visual_tokens
from lfpc.policies.qwen.encode import Encoded
from lfpc.policies.qwen.vision import ViewEncoder, token_pieces

Leaves = dict[int, list[Tensor]]
"""Per conversation (by identity), detached copies of the features of its views."""


class PictureLeaves:
    """Leaves of the pictures of some conversations.

    Args:
        encoder: encodes the pictures; with `share`, equal ones once.
        conversations: the conversations.
        trained: whether the tower is trained.
        factor: width of a visual token in pixels.
        tokens: maximum visual tokens per pass of the tower with gradients.
        autocast: context of the run's precision.
    """

    def __init__(
        self,
        encoder: ViewEncoder,
        conversations: Sequence[Encoded],
        *,
        trained: bool,
        factor: int,
        tokens: int,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._encoder = encoder
        self._autocast = autocast
        self._trained = trained
        views = list(chain.from_iterable(one.views for one in conversations))
        keys = [id(view.image) if encoder.share else n for n, view in enumerate(views)]
        distinct = dict(zip(keys, views, strict=True))
        self._views = list(distinct.values())
        self._pieces = token_pieces([visual_tokens(v.size, factor) for v in self._views], tokens)
        self._features = self._encoded()
        self._leaves = [feature.detach().requires_grad_(trained) for feature in self._features]
        if not self._kept:
            self._features = []
        by_key = dict(zip(distinct, self._leaves, strict=True))
        upcoming = iter(keys)
        self.leaves: Leaves = {
            id(one): [by_key[next(upcoming)] for _ in one.views] for one in conversations
        }

    @property
    def _kept(self) -> bool:
        """Whether the activations of the only pass are kept for the backward pass."""
        return self._trained and len(self._pieces) == 1

    def _encoded(self) -> list[Tensor]:
        with torch.set_grad_enabled(self._kept), self._autocast():
            if self._kept or not self._trained:
                return self._encoder.features(self._views)
            return [
                feature
                for piece in self._pieces
                for feature in self._encoder.features([self._views[n] for n in piece], anew=True)
            ]

    def backward(self) -> None:
        """Pass the gradients that the leaves have collected backward through the tower."""
        if self._kept:
            pass_gradients(zip(self._features, self._leaves, strict=True))
        elif self._trained:
            for piece in self._pieces:
                self._backward(piece)

    def _backward(self, piece: Sequence[int]) -> None:
        views: list[View] = [self._views[n] for n in piece]
        with self._autocast():
            features = self._encoder.features(views)
        pass_gradients(zip(features, (self._leaves[n] for n in piece), strict=True))


def leaf_of(tensor: Tensor) -> Tensor:
    """A detached copy, which collects gradients if `tensor` has a history."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def pass_gradients(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Pass the gradients of leaves backward to their tensors, each once."""
    distinct = {id(leaf): (tensor, leaf.grad) for tensor, leaf in pairs}
    known = [(tensor, grad) for tensor, grad in distinct.values() if grad is not None]
    if known:
        torch.autograd.backward([tensor for tensor, _ in known], [grad for _, grad in known])
