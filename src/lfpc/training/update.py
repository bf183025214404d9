"""One optimiser step on the rollouts of a batch.

Every distinct picture passes the vision tower once (see `pictures`), and every distinct first
prompt of a micro-batch the language model once. Their uses read detached leaves that accumulate
gradients, and the sums go backward through language model and tower. The result equals one large
batch without sharing.

    pictures -> tower -> | leaf -> first prompts -> | leaf -> buckets of rollouts of similar length
    -> loss
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lfpc.errors import ConfigError, first_line
from lfpc.policies.devices import precision
from lfpc.policies.qwen.encode import Encoded
from lfpc.policies.qwen.language import Prefix, Prefixes, compute_prefixes, prefix_key, read
from lfpc.policies.qwen.recompute import recomputed
from lfpc.policies.qwen.sampling import token_logprobs
from lfpc.policies.transformers import TransformersPolicy
from lfpc.training.config import MICRO_BATCH_TOKENS, TrainConfig
from lfpc.training.loss import clipped_loss, token_weights
from lfpc.training.pictures import Leaves, PictureLeaves, leaf_of, pass_gradients
from lfpc.training.rollouts import Rollout

PADDING = 1.4
"""Maximum ratio of the longest to the shortest suffix in a bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """Metrics of one optimiser step."""

    loss: float
    """Loss. Near 0 by construction with one update per batch, as advantages have mean 0."""
    grad_norm: float | None
    """Gradient norm before clipping; None without a finite gradient, which leaves the weights
    unchanged."""
    clip_share: float
    """Share of trained tokens with a clipped gradient."""
    logprob_gap: float
    """Largest |log pi - log pi_sampled| of a trained token: rounding before the first update of a
    batch, movement after it."""
    logprob_gap_mean: float
    """Its mean over the trained tokens."""
    trained_rollouts: int
    """Rollouts with a nonzero advantage; the others have no gradient and are skipped."""


def summed_up(reports: Sequence[UpdateReport], minibatches: int) -> UpdateReport:
    """One report of the updates of a step: means over the last pass, but for the gaps, those of the
    first update, and `trained_rollouts`, the sum of a pass.
    """
    last = [one for one in reports[-minibatches:] if one.trained_rollouts] or reports[-1:]
    norms = [one.grad_norm for one in last if one.grad_norm is not None]
    first = next((one for one in reports if one.trained_rollouts), reports[0])
    return UpdateReport(
        loss=fmean(one.loss for one in last),
        grad_norm=fmean(norms) if norms else None,
        clip_share=fmean(one.clip_share for one in last),
        logprob_gap=first.logprob_gap,
        logprob_gap_mean=first.logprob_gap_mean,
        trained_rollouts=sum(one.trained_rollouts for one in reports[:minibatches]),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Loss and counts of one bucket."""

    loss: float
    clipped: int
    gap: float
    gaps: float
    """Sum over the tokens."""


class Learner:
    """The trained weights with their optimiser.

    Args:
        policy: the policy to train; it encodes pictures and conversations for sampling and
            training.
        config: the run.
    """

    def __init__(self, policy: TransformersPolicy, config: TrainConfig) -> None:
        self.policy = policy
        self.model = policy.model
        self.config = config
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = new_optimizer(self.weights, config)
        self.dtype = precision(config, self.model.device)

    def update(
        self, rollouts: Sequence[Rollout], advantages: Sequence[float], *, step: int
    ) -> UpdateReport:
        """One optimiser step; `step` counts from 1 and sets the learning rate."""
        lengths = np.asarray([len(one.logprobs) for one in rollouts])
        weights = token_weights(lengths, self.config.aggregation)
        trained = [n for n in range(len(rollouts)) if advantages[n] != 0 and lengths[n]]
        if not trained:
            return UpdateReport(
                loss=0.0,
                grad_norm=None,
                clip_share=0.0,
                logprob_gap=0.0,
                logprob_gap_mean=0.0,
                trained_rollouts=0,
            )
        most = self.config.micro_batch_tokens or MICRO_BATCH_TOKENS
        parts: list[_Part] = []
        with recomputed(self.model) if self.config.gradient_checkpointing else nullcontext():
            pictures = PictureLeaves(
                self.policy.views,
                [rollouts[n].encoded for n in trained],
                trained=any(w.requires_grad for w in self.model.model.visual.parameters()),
                factor=self.policy.encoder.merge,
                tokens=most,
                autocast=self.autocast,
            )
            leaves = pictures.leaves
            for chunk in micro_batches(rollouts, trained, self.config.micro_batch, most):
                with self._prefixes([rollouts[n].encoded for n in chunk], leaves) as prefixes:
                    for bucket in length_buckets(rollouts, chunk):
                        parts.append(
                            self._backward(
                                rollouts, bucket, leaves, prefixes, np.asarray(advantages), weights
                            )
                        )
            pictures.backward()
        tokens = int(lengths[trained].sum())
        return UpdateReport(
            loss=sum(part.loss for part in parts),
            grad_norm=self._step(step),
            clip_share=sum(part.clipped for part in parts) / tokens,
            logprob_gap=max(part.gap for part in parts),
            logprob_gap_mean=sum(part.gaps for part in parts) / tokens,
            trained_rollouts=len(trained),
        )

    @contextmanager
    def _prefixes(
        self, conversations: Sequence[Encoded], leaves: Leaves
    ) -> Iterator[Prefixes | None]:
        """Leaves of the first prompts; their gradients go backward at the end of the block. None:
        prompts are not shared.
        """
        if not self.policy.share:
            yield None
            return
        computed: Prefixes = {}
        with self.autocast():
            compute_prefixes(
                self.model,
                conversations,
                [leaves[id(one)] for one in conversations],
                [prefix_key(one) for one in conversations],
                computed,
            )
        detached = {
            key: Prefix([(leaf_of(k), leaf_of(v)) for k, v in prefix.layers], prefix.view)
            for key, prefix in computed.items()
        }
        yield detached
        pass_gradients(zip(_tensors(computed), _tensors(detached), strict=True))

    def _backward(
        self,
        rollouts: Sequence[Rollout],
        bucket: Sequence[int],
        leaves: Leaves,
        prefixes: Prefixes | None,
        advantages: np.ndarray,
        weights: np.ndarray,
    ) -> _Part:
        """Accumulate the gradients of one bucket."""
        chosen = [rollouts[n] for n in bucket]
        device = self.model.device
        counts = [len(one.logprobs) for one in chosen]
        sampled = torch.from_numpy(np.concatenate([one.logprobs for one in chosen])).to(device)
        per_token = [
            torch.from_numpy(values[bucket].repeat(counts)).float().to(device)
            for values in (advantages, weights)
        ]
        with self.autocast():
            logprobs = self.logprobs(chosen, [leaves[id(one.encoded)] for one in chosen], prefixes)
        loss, cut = clipped_loss(
            logprobs, sampled, per_token[0], per_token[1], clip=self.config.clip
        )
        loss.backward()
        gaps = (logprobs.detach() - sampled).abs()
        return _Part(float(loss.detach()), int(cut.sum()), float(gaps.max()), float(gaps.sum()))

    def logprobs(
        self,
        rollouts: Sequence[Rollout],
        features: Sequence[Sequence[Tensor]],
        prefixes: Prefixes | None,
    ) -> Tensor:
        """(policy tokens of all rollouts,) log-probabilities now, computed as in sampling."""
        got = read(self.model, [one.encoded for one in rollouts], features, prefixes=prefixes)
        width = got.hidden.shape[1]
        columns = np.concatenate(
            [one.places - 1 + width - len(one.encoded.ids) for one in rollouts]
        )
        numbers = np.arange(len(rollouts)).repeat([len(one.places) for one in rollouts])
        states = got.hidden[torch.from_numpy(numbers), torch.from_numpy(columns)]
        tokens = torch.from_numpy(
            np.concatenate([one.encoded.ids[one.places] for one in rollouts])
        ).to(states.device)
        banned = self.policy.writer.banned.to(states.device)
        return token_logprobs(
            self.model.lm_head,
            states,
            tokens,
            temperature=self.config.temperature,
            banned=banned,
        )

    def autocast(self) -> Any:
        """Context of matrix products in the run's precision."""
        return torch.autocast(
            self.model.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16
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
    """Learning rate of `step`, counted from 1."""
    left = (
        (config.steps - step + 1) / max(1, config.steps - config.warmup + 1)
        if config.decay
        else 1.0
    )
    return config.learning_rate * min(1.0, step / max(1, config.warmup), left)


def new_optimizer(weights: Sequence[Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of a run.

    Raises:
        ConfigError: bitsandbytes, or a GPU for it, is missing.
    """
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "betas": config.betas,
    }
    if config.optimizer == "adamw":
        return torch.optim.AdamW(weights, **settings, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"`optimizer` adamw-8bit needs the package bitsandbytes ({first_line(error)}); install "
            f"it, or use `optimizer` adamw"
        ) from error
    return AdamW8bit(weights, **settings)


def micro_batches(
    rollouts: Sequence[Rollout],
    trained: Sequence[int],
    size: int,
    tokens: int = MICRO_BATCH_TOKENS,
) -> Iterator[list[int]]:
    """Numbers of the trained rollouts in batches of at most `size` rollouts and `tokens` tokens,
    with one question and similar lengths together. A longer rollout is a batch of its own.
    """
    groups: dict[int, list[int]] = {}
    for number in trained:
        groups.setdefault(id(rollouts[number].views[0].image), []).append(number)
    ordered = sorted(
        groups.values(), key=lambda group: max(len(rollouts[n].encoded.ids) for n in group)
    )
    order = list(chain.from_iterable(ordered))
    batch: list[int] = []
    total = 0
    for number in order:
        length = len(rollouts[number].encoded.ids)
        if batch and (len(batch) == size or total + length > tokens):
            yield batch
            batch, total = [], 0
        batch.append(number)
        total += length
    if batch:
        yield batch


def length_buckets(rollouts: Sequence[Rollout], chunk: Sequence[int]) -> list[list[int]]:
    """`chunk` in buckets of similar suffix length, which need little padding."""
    suffixes = {n: len(rollouts[n].encoded.ids) - rollouts[n].encoded.prefix for n in chunk}
    buckets: list[list[int]] = []
    for number in sorted(chunk, key=suffixes.__getitem__):
        if not buckets or suffixes[number] > PADDING * suffixes[buckets[-1][0]]:
            buckets.append([])
        buckets[-1].append(number)
    return buckets


def _tensors(prefixes: Prefixes) -> list[Tensor]:
    return [tensor for prefix in prefixes.values() for pair in prefix.layers for tensor in pair]
