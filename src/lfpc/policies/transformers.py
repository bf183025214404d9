"""A transformers model in this process as a policy, sampled in batches."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lfpc.dialogue import STOPPED, TRUNCATED, Context, Reply, Usage
from lfpc.errors import ConfigError
from lfpc.policies.backends import Backend
from lfpc.policies.config import PolicyConfig, TextLogprob, policy_config, reply_seed
from lfpc.policies.qwen.architectures import architecture_of
from lfpc.policies.qwen.encode import Encoded, Encoder
from lfpc.policies.qwen.language import Prefixes, read
from lfpc.policies.qwen.sampling import ROOM, Writer, write
from lfpc.policies.qwen.vision import ViewEncoder
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.protocols import PROTOCOLS, ChatProtocol


class TransformersPolicy:
    """Samples replies with log-probabilities.

    Equal contexts (the first turn of a rollout group) are computed once. Within `cached_views()`
    pictures and first prompts are computed once for all turns.

    Args:
        model, tokenizer: results of `load_checkpoint`.
        protocol: the model family's protocol.
        sampling: sampling parameters.
        batch_size: contexts per batch.
        generator: random generator on the model's device, whose numbers all replies share in turn;
            None: each reply has its own numbers, by the seed of `sampling`, question and turn.
        tools: whether to offer the tool.
        share: whether to compute equal parts once; False for comparison.
        name: the model in its configuration: the folder of the checkpoint.
    """

    backend: Backend = None

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        protocol: ChatProtocol,
        *,
        sampling: Sampling = GREEDY,
        batch_size: int = 64,
        generator: torch.Generator | None = None,
        tools: bool = True,
        share: bool = True,
        name: str = "",
    ) -> None:
        self.model = model
        self.name = name
        self.batch_size = batch_size
        self.share = share
        self.sampling = sampling
        self.encoder = Encoder(
            tokenizer, protocol, tools=tools, positions=architecture_of(model).positions
        )
        _check_factor(model, protocol)
        self.writer = Writer(
            tokenizer, protocol.stop, model.get_output_embeddings().weight.shape[0]
        )
        self.views = ViewEncoder(model, share=share)
        self.generator = generator
        self.seed = sampling.sampling_seed or 0
        self._prefixes: Prefixes | None = None

    @property
    def config(self) -> PolicyConfig:
        """The model, its protocol and its sampling."""
        return policy_config(self.name, self.encoder.protocol, self.sampling)

    def without_tools(self) -> Self:
        """Another policy of the same model, shown the system message without the tool."""
        other = self.resampled(self.sampling)
        other.encoder = Encoder(
            self.encoder.tokenizer,
            self.encoder.protocol,
            tools=False,
            positions=self.encoder.positions,
        )
        return other

    def resampled(self, sampling: Sampling) -> Self:
        """Another policy of the same model with other sampling. It shares the model and tokenizer
        tables, and no mutable state.
        """
        other = copy(self)
        other.sampling = sampling
        other.views = ViewEncoder(self.model, share=self.share)
        other.generator = None
        other.reseed(sampling.sampling_seed)
        other._prefixes = None
        return other

    def reseed(self, seed: int | None) -> None:
        """Sample further replies with `seed`; None: 0."""
        self.seed = seed or 0

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One sampled reply per context, in the same order."""
        encoded = [self.encoder.context(context) for context in contexts]
        randoms = self._randoms(contexts)
        order = sorted(range(len(encoded)), key=lambda n: len(encoded[n].ids))
        replies: dict[int, Reply] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            some = self._reply_batch(
                [encoded[n] for n in batch],
                randoms[batch] if isinstance(randoms, torch.Tensor) else randoms,
            )
            replies.update(zip(batch, some, strict=True))
        return [replies[n] for n in range(len(encoded))]

    def _randoms(self, contexts: Sequence[Context]) -> torch.Generator | torch.Tensor:
        """The generator, or (contexts, max_new_tokens) numbers in [0, 1) by question and turn.
        Contexts without a key, or of the same episode, are counted.
        """
        if self.generator is not None:
            return self.generator
        if self.sampling.temperature == 0:
            return torch.zeros(len(contexts), self.sampling.max_new_tokens, dtype=torch.float64)
        seeds = [reply_seed(self.seed, context) for context in contexts]
        seen: Counter[int] = Counter()
        numbers: list[np.ndarray] = []
        for seed in seeds:
            rng = np.random.default_rng([seed, seen[seed]])
            numbers.append(rng.random(self.sampling.max_new_tokens))
            seen[seed] += 1
        return torch.from_numpy(np.stack(numbers)) if numbers else torch.zeros(0, 0)

    @torch.no_grad()
    def _reply_batch(
        self, rows: Sequence[Encoded], randoms: torch.Generator | torch.Tensor
    ) -> list[Reply]:
        prefixes = (self._prefixes if self._prefixes is not None else {}) if self.share else None
        start = read(self.model, rows, row_features(self.views, rows), prefixes=prefixes, room=ROOM)
        written = write(self.model, rows, start, self.writer, self.sampling, randoms)
        return [
            Reply(
                self.writer.text(reply.ids),
                tuple(reply.ids),
                tuple(reply.logprobs),
                Usage(len(row.ids), len(reply.ids)),
                STOPPED if reply.over else TRUNCATED,
            )
            for row, reply in zip(rows, written, strict=True)
        ]

    @torch.no_grad()
    def answer_logprobs(
        self, contexts: Sequence[Context], answers: Sequence[Sequence[str]]
    ) -> list[list[TextLogprob]]:
        """See `lfpc.policies.config.ScoringPolicy`. Mark and answer are tokenised apart."""
        mark = self.encoder.text_ids(self.encoder.protocol.answer_mark)
        texts = [self.encoder.text_ids(text) for some in answers for text in some]
        owners = [context for context, some in zip(contexts, answers, strict=True) for _ in some]
        rows = [
            self.encoder.episode(context, Reply("", token_ids=mark + ids))
            for context, ids in zip(owners, texts, strict=True)
        ]
        found: dict[int, TextLogprob] = {}
        order = sorted(range(len(rows)), key=lambda n: len(rows[n].ids))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            lengths = [len(texts[n]) for n in batch]
            for n, logprobs in zip(
                batch, self._tails([rows[n] for n in batch], lengths), strict=True
            ):
                found[n] = TextLogprob(float(logprobs.double().sum()), len(logprobs))
        scores = iter([found[n] for n in range(len(rows))])
        return [[next(scores) for _ in some] for some in answers]

    def _tails(self, rows: Sequence[Encoded], lengths: Sequence[int]) -> list[torch.Tensor]:
        """Log-probabilities of the last `lengths` tokens of each row, (length,) each."""
        prefixes = (self._prefixes if self._prefixes is not None else {}) if self.share else None
        states = read(self.model, rows, row_features(self.views, rows), prefixes=prefixes).hidden
        found: list[torch.Tensor] = []
        for row, encoded, length in zip(states, rows, lengths, strict=True):
            logits = self.model.lm_head(row[len(row) - 1 - length : len(row) - 1]).float()
            ids = torch.from_numpy(encoded.ids[len(encoded.ids) - length :]).to(logits.device)
            found.append(logits.log_softmax(-1).gather(1, ids[:, None])[:, 0])
        return found

    @contextmanager
    def cached_views(self) -> Iterator[None]:
        """Compute each picture and each first prompt once in this block, in which the weights must
        not change.
        """
        with self.views.remembered():
            self._prefixes = {}
            try:
                yield
            finally:
                self._prefixes = None


def _check_factor(model: Any, protocol: ChatProtocol) -> None:
    visual = model.model.visual
    side = visual.config.patch_size * visual.spatial_merge_size
    if side != protocol.factor:
        fitting = [name for name, one in PROTOCOLS.items() if one.factor == side]
        raise ConfigError(
            f"--protocol {protocol.name} makes visual tokens of {protocol.factor} pixels, but this "
            f"checkpoint's are {side} pixels wide"
            + (f"; use --protocol {' or '.join(fitting)}" if fitting else "")
        )


def row_features(views: ViewEncoder, rows: Sequence[Encoded]) -> list[list[torch.Tensor]]:
    """Features of the views of each row, from one call of the tower."""
    features = iter(views.features([view for row in rows for view in row.views]))
    return [[next(features) for _ in row.views] for row in rows]
