"""A transformers model in this process as a policy, sampled in batches."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lfpc.dialogue import STOPPED, TRUNCATED, Context, Reply, Usage
from lfpc.errors import PolicyError
from lfpc.policies.backends import BATCH_TOKENS, Backend
from lfpc.policies.config import PolicyConfig, policy_config, reply_seed
from lfpc.policies.devices import out_of_memory, release_memory
from lfpc.policies.qwen.encode import Encoded, Encoder
from lfpc.policies.qwen.language import Prefixes, drop_oldest, read
from lfpc.policies.qwen.sampling import ROOM, Writer, write
from lfpc.policies.qwen.vision import ViewEncoder
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.protocols import ChatProtocol

log = logging.getLogger(__name__)


class TransformersPolicy:
    """Samples replies with log-probabilities.

    Equal contexts (the first turn of a rollout group) are computed once. Within `cached_views()`
    pictures and first prompts are computed once for all turns.

    Args:
        model, tokenizer: results of `load_checkpoint`.
        protocol: the model family's protocol.
        sampling: sampling parameters.
        batch_size: maximum contexts per batch.
        batch_tokens: maximum tokens per batch, with padding and the replies; a batch that runs out
            of memory is halved. Pictures and prompts that `cached_views` keeps are bounded by as
            many tokens.
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
        batch_tokens: int = BATCH_TOKENS,
        generator: torch.Generator | None = None,
        tools: bool = True,
        share: bool = True,
        name: str = "",
    ) -> None:
        self.model = model
        self.name = name
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.share = share
        self.sampling = sampling
        self.encoder = Encoder(tokenizer, protocol, tools=tools)
        self.writer = Writer(
            tokenizer, protocol.stop, model.get_output_embeddings().weight.shape[0]
        )
        self.views = ViewEncoder(model, share=share, kept_tokens=batch_tokens)
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
        other.encoder = Encoder(self.encoder.tokenizer, self.encoder.protocol, tools=False)
        return other

    def resampled(self, sampling: Sampling) -> Self:
        """Another policy of the same model with other sampling. It shares the model and tokenizer
        tables, and no mutable state.
        """
        other = copy(self)
        other.sampling = sampling
        other.views = ViewEncoder(self.model, share=self.share, kept_tokens=self.batch_tokens)
        other.generator = None
        other.reseed(sampling.sampling_seed)
        other._prefixes = None
        return other

    def reseed(self, seed: int | None) -> None:
        """Sample further replies with `seed`; None: 0."""
        self.seed = seed or 0

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One sampled reply per context, in the same order.

        Raises:
            PolicyError: a single conversation needs more memory than there is.
        """
        encoded = [self.encoder.context(context) for context in contexts]
        randoms = self._randoms(contexts)
        order = sorted(range(len(encoded)), key=lambda n: len(encoded[n].ids))
        todo = self._batches(encoded, order)[::-1]
        replies: dict[int, Reply] = {}
        while todo:
            batch = todo.pop()
            some = self._tried(
                [encoded[n] for n in batch],
                randoms[batch] if isinstance(randoms, torch.Tensor) else randoms,
            )
            if some is not None:
                replies.update(zip(batch, some, strict=True))
                continue
            release_memory()
            length = len(encoded[batch[-1]].ids)
            if len(batch) == 1:
                raise PolicyError(
                    f"a conversation of {length} tokens does not fit into the memory of "
                    f"{self.model.device}; lower the budgets, or use --dtype bfloat16 or a larger "
                    f"device"
                )
            half = (len(batch) + 1) // 2
            self.batch_tokens = half * (length + self.sampling.max_new_tokens)
            log.warning(
                "a batch of %d conversations of up to %d tokens ran out of memory; continuing with "
                "--batch-tokens %d",
                len(batch),
                length,
                self.batch_tokens,
            )
            rest = [*batch, *(n for others in reversed(todo) for n in others)]
            todo = self._batches(encoded, rest)[::-1]
        return [replies[n] for n in range(len(encoded))]

    def _batches(self, encoded: Sequence[Encoded], order: Sequence[int]) -> list[list[int]]:
        """`order`, by rising length, in batches within both limits; a longer conversation is a
        batch of its own.
        """
        batches: list[list[int]] = []
        for number in order:
            length = len(encoded[number].ids) + self.sampling.max_new_tokens
            size = len(batches[-1]) if batches else self.batch_size
            if size >= self.batch_size or (size + 1) * length > self.batch_tokens:
                batches.append([])
            batches[-1].append(number)
        return batches

    def _tried(
        self, rows: Sequence[Encoded], randoms: torch.Generator | torch.Tensor
    ) -> list[Reply] | None:
        """The replies; None: out of memory. The exception, which keeps the batch's tensors, ends
        here.
        """
        try:
            return self._reply_batch(rows, randoms)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None

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
        if prefixes:
            drop_oldest(prefixes, self.batch_tokens)
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

    def forget_prompts(self) -> None:
        """Free the first prompts that `cached_views` keeps."""
        if self._prefixes:
            self._prefixes.clear()

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


def row_features(views: ViewEncoder, rows: Sequence[Encoded]) -> list[list[torch.Tensor]]:
    """Features of the views of each row, from one call of the tower."""
    features = iter(views.features([view for row in rows for view in row.views]))
    return [[next(features) for _ in row.views] for row in rows]
