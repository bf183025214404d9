"""One optimiser step on the rollouts of a batch.

Every distinct picture passes the vision tower once, and every distinct first prompt the language
model once. Who reads them reads leaves in which gradients add up, and the sums go backward through
language model and tower once. The result is that of one large batch in which nothing is shared.

    pictures -> tower -> | leaf -> first prompts -> | leaf -> buckets of rollouts of similar length
    -> loss
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lfpc.policies.qwen.encode import Encoded
from lfpc.policies.qwen.language import Prefix, Prefixes, compute_prefixes, prefix_key, read
from lfpc.policies.qwen.sampling import log_softmax
from lfpc.policies.transformers import TransformersPolicy
from lfpc.training.config import TrainConfig
from lfpc.training.loss import clipped_loss, token_weights
from lfpc.training.rollouts import Rollout

Leaves = dict[int, list[Tensor]]
"""Per conversation (by identity), what stands for the features of its views."""
PADDING = 1.4
"""The longest suffix in a bucket is at most this many times its shortest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """What one optimiser step did."""

    loss: float
    """Value of the loss. With one update per batch it is near 0 by construction: advantages have
    mean 0."""
    grad_norm: float | None
    """Before it was shortened; None if nothing was trained or the gradient was not finite (then
    weights stay as they are)."""
    clip_share: float
    """Share of trained tokens whose gradient was clipped away."""
    logprob_gap: float
    """Largest |log pi - log pi_sampled| of a trained token: rounding before the first update of a
    batch, movement after it."""
    trained_rows: int
    """Rollouts with an advantage; the others have no gradient and are not computed."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What one bucket contributed."""

    loss: float
    clipped: int
    gap: float


class Learner:
    """The trained weights with their optimiser.

    Args:
        policy: whose model is trained; it reads pictures and conversations for sampling and for
            training alike.
        config: the run.
    """

    def __init__(self, policy: TransformersPolicy, config: TrainConfig) -> None:
        self.policy = policy
        self.model = policy.model
        self.config = config
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.95),
            fused=True,
        )

    def update(
        self, rows: Sequence[Rollout], advantages: Sequence[float], *, step: int
    ) -> UpdateReport:
        """One optimiser step; `step` counts from 1 and sets the learning rate."""
        lengths = np.asarray([len(row.logprobs) for row in rows])
        weights = token_weights(lengths, self.config.aggregation)
        trained = [n for n in range(len(rows)) if advantages[n] != 0 and lengths[n]]
        if not trained:
            return UpdateReport(
                loss=0.0, grad_norm=None, clip_share=0.0, logprob_gap=0.0, trained_rows=0
            )
        features, leaves = self._picture_leaves([rows[n].encoded for n in trained])
        parts: list[_Part] = []
        for chunk in micro_batches(rows, trained, self.config.micro_batch):
            with self._prefixes([rows[n].encoded for n in chunk], leaves) as prefixes:
                for bucket in length_buckets(rows, chunk):
                    parts.append(
                        self._backward(
                            rows, bucket, leaves, prefixes, np.asarray(advantages), weights
                        )
                    )
        _hand_over(zip(features, chain.from_iterable(leaves.values()), strict=True))
        tokens = int(lengths[trained].sum())
        return UpdateReport(
            loss=sum(part.loss for part in parts),
            grad_norm=self._step(step),
            clip_share=sum(part.clipped for part in parts) / tokens,
            logprob_gap=max(part.gap for part in parts),
            trained_rows=len(trained),
        )

    def _picture_leaves(self, rows: Sequence[Encoded]) -> tuple[list[Tensor], Leaves]:
        """Features with their history, and per row (by identity) the leaves that stand for them."""
        with torch.no_grad() if self.config.freeze_vision else nullcontext(), self.autocast():
            features = self.policy.views.features([view for row in rows for view in row.views])
        leaf_of = {id(feature): _leaf(feature) for feature in features}
        upcoming = iter(features)
        leaves = {id(row): [leaf_of[id(next(upcoming))] for _ in row.views] for row in rows}
        return features, leaves

    @contextmanager
    def _prefixes(self, rows: Sequence[Encoded], leaves: Leaves) -> Iterator[Prefixes | None]:
        """Leaves of the rows' first prompts for the time of the block; then what they gathered goes
        backward. None: nothing is shared.
        """
        if not self.policy.share:
            yield None
            return
        computed: Prefixes = {}
        with self.autocast():
            compute_prefixes(
                self.model,
                rows,
                [leaves[id(row)] for row in rows],
                [prefix_key(row) for row in rows],
                computed,
            )
        detached = {
            key: Prefix([(_leaf(k), _leaf(v)) for k, v in prefix.layers], prefix.view)
            for key, prefix in computed.items()
        }
        yield detached
        _hand_over(zip(_tensors(computed), _tensors(detached), strict=True))

    def _backward(
        self,
        rows: Sequence[Rollout],
        bucket: Sequence[int],
        leaves: Leaves,
        prefixes: Prefixes | None,
        advantages: np.ndarray,
        weights: np.ndarray,
    ) -> _Part:
        """Gradients of rollouts that are read together."""
        chosen = [rows[n] for n in bucket]
        device = self.model.device
        counts = [len(row.logprobs) for row in chosen]
        sampled = torch.from_numpy(np.concatenate([row.logprobs for row in chosen])).to(device)
        per_token = [
            torch.from_numpy(values[bucket].repeat(counts)).float().to(device)
            for values in (advantages, weights)
        ]
        with self.autocast():
            logprobs = self.logprobs(chosen, [leaves[id(row.encoded)] for row in chosen], prefixes)
        loss, cut = clipped_loss(
            logprobs, sampled, per_token[0], per_token[1], clip=self.config.clip
        )
        loss.backward()
        return _Part(
            float(loss.detach()), int(cut.sum()), float((logprobs.detach() - sampled).abs().max())
        )

    def logprobs(
        self,
        rows: Sequence[Rollout],
        features: Sequence[Sequence[Tensor]],
        prefixes: Prefixes | None,
    ) -> Tensor:
        """(policy tokens of all rows,) log-probabilities now, computed as in sampling."""
        got = read(self.model, [row.encoded for row in rows], features, prefixes=prefixes)
        width = got.hidden.shape[1]
        columns = np.concatenate([row.places - 1 + width - len(row.encoded.ids) for row in rows])
        numbers = np.arange(len(rows)).repeat([len(row.places) for row in rows])
        states = got.hidden[torch.from_numpy(numbers), torch.from_numpy(columns)]
        tokens = torch.from_numpy(np.concatenate([row.encoded.ids[row.places] for row in rows])).to(
            states.device
        )
        banned = self.policy.writer.banned.to(states.device)
        table = log_softmax(
            self.model.lm_head(states), temperature=self.config.temperature, banned=banned
        )
        return table.gather(1, tokens[:, None])[:, 0]

    def autocast(self) -> Any:
        """bfloat16 matrix products where the run asks for them."""
        return torch.autocast(
            self.model.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"
        )

    def _step(self, step: int) -> float | None:
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.config.max_grad_norm)
        finite = bool(norm.isfinite())
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.config, step)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm) if finite else None


def learning_rate(config: TrainConfig, step: int) -> float:
    """Of step `step`, counted from 1."""
    left = (
        (config.steps - step + 1) / max(1, config.steps - config.warmup + 1)
        if config.decay
        else 1.0
    )
    return config.learning_rate * min(1.0, step / max(1, config.warmup), left)


def micro_batches(
    rows: Sequence[Rollout], trained: Sequence[int], size: int
) -> Iterator[list[int]]:
    """Numbers of the trained rows in batches of at most `size`: rollouts of one question together,
    similar lengths together.
    """
    groups: dict[int, list[int]] = {}
    for number in trained:
        groups.setdefault(id(rows[number].views[0].image), []).append(number)
    ordered = sorted(
        groups.values(), key=lambda group: max(len(rows[n].encoded.ids) for n in group)
    )
    order = list(chain.from_iterable(ordered))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def length_buckets(rows: Sequence[Rollout], chunk: Sequence[int]) -> list[list[int]]:
    """`chunk` in buckets of similar suffix length, so that little is computed for padding."""
    suffixes = {n: len(rows[n].encoded.ids) - rows[n].encoded.prefix for n in chunk}
    buckets: list[list[int]] = []
    for number in sorted(chunk, key=suffixes.__getitem__):
        if not buckets or suffixes[number] > PADDING * suffixes[buckets[-1][0]]:
            buckets.append([])
        buckets[-1].append(number)
    return buckets


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _tensors(prefixes: Prefixes) -> list[Tensor]:
    return [tensor for prefix in prefixes.values() for pair in prefix.layers for tensor in pair]


def _hand_over(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Hand what leaves gathered to the tensors they stand for, each once."""
    distinct = {id(leaf): (tensor, leaf.grad) for tensor, leaf in pairs}
    known = [(tensor, grad) for tensor, grad in distinct.values() if grad is not None]
    if known:
        torch.autograd.backward([tensor for tensor, _ in known], [grad for _, grad in known])
