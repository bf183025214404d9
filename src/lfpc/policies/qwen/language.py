"""Encoded conversations through the language model, with shared prefixes computed once.

    prefix of question 1    suffix of its rollout 1
    p p V V V p             |  p r r r o V V o r r
                            suffix of its rollout 2
                            |  _ _ _ _ _ _ p r r r

Every row is [prefix | suffix]. A prefix is computed once per distinct question and picture, and its
keys and values serve all its rows. Both parts are padded on the left; padding is never attended to.

Sampling and training read through the same function, so their log-probabilities agree.
"""

from collections.abc import Hashable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lfpc.images import View
from lfpc.policies.qwen.architectures import architecture_of
from lfpc.policies.qwen.attention import attention_mask
from lfpc.policies.qwen.encode import Encoded


class KeyValues:
    """Cache of attention keys and values of every layer, (rows, heads, tokens, width) each, for
    transformers' layers.

    Without gradients the tensors have spare room, so that a new token does not copy the old ones.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]] = (), *, room: int = 0) -> None:
        self.room = room
        self._parts = [[keys, values] for keys, values in layers]
        self._used = [keys.shape[2] for keys, _ in layers]

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Append to one layer and return all of it."""
        if layer == len(self._parts):
            self._parts.append([keys[:, :, :0], values[:, :, :0]])
            self._used.append(0)
        end = self._used[layer] + keys.shape[2]
        for part, new in enumerate((keys, values)):
            self._append(layer, part, new, end)
        self._used[layer] = end
        return self._parts[layer][0][:, :, :end], self._parts[layer][1][:, :, :end]

    def _append(self, layer: int, part: int, new: Tensor, end: int) -> None:
        old = self._parts[layer][part]
        used = self._used[layer]
        if torch.is_grad_enabled() or not self.room:
            self._parts[layer][part] = torch.cat([old[:, :, :used], new], dim=2)
            return
        if end > old.shape[2]:
            larger = new.new_empty(*new.shape[:2], end + self.room, new.shape[3])
            larger[:, :, :used] = old[:, :, :used]
            self._parts[layer][part] = old = larger
        old[:, :, used:end] = new

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The stored keys and values, without spare room."""
        return [
            (keys[:, :, :used], values[:, :, :used])
            for (keys, values), used in zip(self._parts, self._used, strict=True)
        ]

    def layer(self, number: int) -> tuple[Tensor, ...]:
        """Keys and values of one layer, or nothing before its first update."""
        return self.layers()[number] if number < len(self._parts) else ()

    def put(self, number: int, keys: Tensor, values: Tensor) -> None:
        """Replace the keys and values of one layer, or add the next layer."""
        self._parts[number : number + 1] = [[keys, values]]
        self._used[number : number + 1] = [keys.shape[2]]

    def get_query_offset(self, layer: int = 0) -> int:
        """Tokens before the next ones, as transformers asks a cache."""
        return self._used[layer] if layer < len(self._used) else 0

    get_seq_length = get_query_offset
    """The name in older versions of transformers."""

    def get_mask_sizes(self, length: int, layer: int) -> tuple[int, int]:
        """(keys that the next `length` tokens see, offset of the first), as transformers asks."""
        return self.get_query_offset(layer) + length, 0

    def select(self, rows: Tensor) -> None:
        """Keep these rows only."""
        self._parts = [[keys[rows], values[rows]] for keys, values in self._parts]


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of a prompt prefix that rollouts share."""

    layers: list[tuple[Tensor, Tensor]]
    """Per layer keys and values, (attention heads, tokens, width); the tokens may be padded on the
    left."""
    view: View
    """The picture; a reference keeps its identity unique."""


Prefixes = MutableMapping[Hashable, Prefix]


@dataclass(frozen=True, slots=True)
class Read:
    """Result of reading a batch of conversations."""

    hidden: Tensor
    """(rows, suffix, hidden): the last layer's states over the left-padded suffixes; the last
    column is each row's last token."""
    visible: Tensor
    """(rows, prefix + suffix) bool: which columns of `cache` are tokens."""
    cache: KeyValues


def read(
    model: Any,
    rows: Sequence[Encoded],
    features: Sequence[Sequence[Tensor]],
    *,
    prefixes: Prefixes | None,
    room: int = 0,
) -> Read:
    """Run the language model over whole conversations.

    Args:
        model: a model of a supported architecture.
        rows: the conversations.
        features: per row, the features of its views.
        prefixes: computed prefixes, read and extended; None: no sharing.
        room: number of tokens to append to the cache later.
    """
    shared: Prefixes = {} if prefixes is None else prefixes
    keys = [number if prefixes is None else prefix_key(row) for number, row in enumerate(rows)]
    compute_prefixes(model, rows, features, keys, shared)
    distinct = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    index = torch.tensor([distinct[key] for key in keys], device=model.device)
    past = [shared[key].layers for key in distinct]
    layers = [
        (_stack(p[n][0] for p in past)[index], _stack(p[n][1] for p in past)[index])
        for n in range(len(past[0]))
    ]
    before = _visible([row.prefix for row in rows], layers[0][0].shape[2], model.device)
    cache = KeyValues(layers, room=room)
    suffixes = [slice(row.prefix, len(row.ids)) for row in rows]
    hidden, own = _run(model, rows, suffixes, [f for fs in features for f in fs[1:]], cache, before)
    return Read(hidden, torch.cat([before, own], dim=1), cache)


def prefix_key(row: Encoded) -> Hashable:
    """Key of a row's prefix, equal for the same picture with the same words."""
    return id(row.views[0].image), row.ids[: row.prefix].tobytes()


def drop_oldest(prefixes: Prefixes, tokens: int) -> None:
    """Drop the oldest prefixes until the others have at most `tokens` tokens."""
    total = sum(_tokens(prefix) for prefix in prefixes.values())
    for key in list(prefixes):
        if total <= tokens:
            return
        total -= _tokens(prefixes.pop(key))


def _tokens(prefix: Prefix) -> int:
    return prefix.layers[0][0].shape[1]


def compute_prefixes(
    model: Any,
    rows: Sequence[Encoded],
    features: Sequence[Sequence[Tensor]],
    keys: Sequence[Hashable],
    prefixes: Prefixes,
) -> None:
    """Add the missing prefixes to `prefixes`, computed in one batch."""
    fresh = {key: number for number, key in enumerate(keys) if key not in prefixes}
    if not fresh:
        return
    chosen = [rows[number] for number in fresh.values()]
    cache = KeyValues()
    _run(
        model,
        chosen,
        [slice(0, row.prefix) for row in chosen],
        [features[number][0] for number in fresh.values()],
        cache,
        None,
    )
    layers = [(keys.unbind(0), values.unbind(0)) for keys, values in cache.layers()]
    for place, (key, row) in enumerate(zip(fresh, chosen, strict=True)):
        prefixes[key] = Prefix(
            [(keys[place], values[place]) for keys, values in layers], row.views[0]
        )


def _run(
    model: Any,
    rows: Sequence[Encoded],
    parts: Sequence[slice],
    features: Sequence[Tensor],
    cache: KeyValues,
    before: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """States of the given part of every row, left-padded, with a mask of the tokens. Keys and
    values go to `cache`.
    """
    device = model.device
    lengths = [part.stop - part.start for part in parts]
    ids, positions = _left_padded(rows, parts, max(lengths))
    ids = ids.to(device)
    visible = _visible(lengths, max(lengths), device)
    embeds = model.get_input_embeddings()(ids)
    inputs = {"inputs_embeds": embeds}
    if features:
        places = (ids == model.config.image_token_id) & visible
        inputs = architecture_of(model).inputs(embeds, places, torch.cat(list(features)))
    states = model.model.language_model(
        **inputs,
        position_ids=positions.to(device),
        attention_mask=attention_mask(model.model.language_model, visible, before, embeds.dtype),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return states, visible


def _left_padded(
    rows: Sequence[Encoded], parts: Sequence[slice], longest: int
) -> tuple[Tensor, Tensor]:
    """(rows, longest) ids and (3, rows, longest) positions."""
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    positions = np.zeros((3, len(rows), longest), dtype=np.int64)
    for n, (row, part) in enumerate(zip(rows, parts, strict=True)):
        start = longest - (part.stop - part.start)
        ids[n, start:] = row.ids[part]
        positions[:, n, start:] = row.positions[:, part]
    return torch.from_numpy(ids), torch.from_numpy(positions)


def _visible(lengths: Sequence[int], longest: int, device: torch.device) -> Tensor:
    """(rows, longest) bool: True on the last `length` columns."""
    return (
        torch.arange(longest, device=device)[None]
        >= longest - torch.tensor(lengths, device=device)[:, None]
    )


def _stack(parts: Any) -> Tensor:
    """(rows, heads, longest, width) from (heads, tokens, width) parts, left-padded."""
    parts = list(parts)
    longest = max(part.shape[1] for part in parts)
    return torch.stack(
        [
            torch.nn.functional.pad(p, (0, 0, longest - p.shape[1], 0))
            if p.shape[1] < longest
            else p
            for p in parts
        ]
    )
