"""A transformers model in this process as a policy, sampled in batches."""

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Self, TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lfpc.dialogue import STOPPED, TRUNCATED, Context, Reply, Usage
from lfpc.episode import all_together
from lfpc.errors import ConfigError, PolicyError
from lfpc.policies.backends import BATCH_TOKENS, Backend
from lfpc.policies.config import (
    PolicyConfig,
    TextLogprob,
    ViewAttention,
    policy_config,
    reply_seed,
)
from lfpc.policies.devices import out_of_memory, release_memory
from lfpc.policies.qwen.architectures import architecture_of
from lfpc.policies.qwen.encode import Encoded, Encoder
from lfpc.policies.qwen.language import Prefixes, drop_oldest, prefix_key, read
from lfpc.policies.qwen.sampling import ROOM, Writer, write
from lfpc.policies.qwen.vision import ViewEncoder
from lfpc.policies.qwen.watching import view_attention
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.protocols import PROTOCOLS, ChatProtocol

log = logging.getLogger(__name__)
R = TypeVar("R")


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
        self.encoder = Encoder(
            tokenizer, protocol, tools=tools, positions=architecture_of(model).positions
        )
        _check_factor(model, protocol)
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

        def compute(batch: list[int]) -> list[Reply]:
            own = randoms[batch] if isinstance(randoms, torch.Tensor) else randoms
            return self._reply_batch([encoded[n] for n in batch], own)

        return self._in_batches(encoded, self.sampling.max_new_tokens, compute)

    def together(self, contexts: Sequence[Context]) -> list[Sequence[int]]:
        """The numbers of `contexts`, first ones of episodes, in groups whose prompts `cached_views`
        keeps at once. Each prompt is read once if a group is played to its end before the next.
        """
        if self._prefixes is None or not self.share:
            return all_together(contexts)
        groups: list[list[int]] = []
        prompts: set[Hashable] = set()
        tokens = 0
        for number, context in enumerate(contexts):
            row = self.encoder.context(context)
            key = prefix_key(row)
            if key not in prompts:
                length = len(row.ids) + self.sampling.max_new_tokens
                if not groups or tokens + length > self.batch_tokens:
                    groups.append([])
                    prompts.clear()
                    tokens = 0
                prompts.add(key)
                tokens += length
            groups[-1].append(number)
        return [*groups]

    def _in_batches(
        self, rows: Sequence[Encoded], room: int, compute: Callable[[list[int]], list[R]]
    ) -> list[R]:
        """Results of `compute` for all rows, which gets the numbers of some of similar length.

        Args:
            rows: the conversations.
            room: tokens that each of them grows by.
            compute: results of a batch; one that runs out of memory is halved.
        Raises:
            PolicyError: a single conversation needs more memory than there is.
        """
        order = sorted(range(len(rows)), key=lambda n: len(rows[n].ids))
        todo = self._batches(rows, order, room)[::-1]
        found: dict[int, R] = {}
        while todo:
            batch = todo.pop()
            some = _tried(compute, batch)
            if some is not None:
                found.update(zip(batch, some, strict=True))
                continue
            release_memory()
            length = len(rows[batch[-1]].ids)
            if len(batch) == 1:
                raise PolicyError(
                    f"a conversation of {length} tokens does not fit into the memory of "
                    f"{self.model.device}; lower the budgets, or use --dtype bfloat16 or a larger "
                    f"device"
                )
            self.batch_tokens = (len(batch) + 1) // 2 * (length + room)
            log.warning(
                "a batch of %d conversations of up to %d tokens ran out of memory; continuing with "
                "--batch-tokens %d",
                len(batch),
                length,
                self.batch_tokens,
            )
            rest = [*batch, *(n for others in reversed(todo) for n in others)]
            todo = self._batches(rows, rest, room)[::-1]
        return [found[number] for number in range(len(rows))]

    def _batches(self, rows: Sequence[Encoded], order: Sequence[int], room: int) -> list[list[int]]:
        """`order`, by rising length, in batches within both limits; a longer conversation is a
        batch of its own.
        """
        batches: list[list[int]] = []
        for number in order:
            length = len(rows[number].ids) + room
            size = len(batches[-1]) if batches else self.batch_size
            if size >= self.batch_size or (size + 1) * length > self.batch_tokens:
                batches.append([])
            batches[-1].append(number)
        return batches

    def _randoms(self, contexts: Sequence[Context]) -> torch.Generator | torch.Tensor:
        """The generator, or (contexts, max_new_tokens) numbers in [0, 1) by question and turn.
        Equal contexts, and contexts without a key, are counted.
        """
        if self.generator is not None:
            return self.generator
        if self.sampling.temperature == 0:
            return torch.zeros(len(contexts), self.sampling.max_new_tokens, dtype=torch.float64)
        seen: Counter[Context | int] = Counter()
        numbers: list[np.ndarray] = []
        for context in contexts:
            counted = context if context.key else len(context.turns)
            rng = np.random.default_rng([reply_seed(self.seed, context), seen[counted]])
            numbers.append(rng.random(self.sampling.max_new_tokens))
            seen[counted] += 1
        return torch.from_numpy(np.stack(numbers)) if numbers else torch.zeros(0, 0)

    @torch.no_grad()
    def _reply_batch(
        self, rows: Sequence[Encoded], randoms: torch.Generator | torch.Tensor
    ) -> list[Reply]:
        prefixes = self._known_prefixes()
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

    def _known_prefixes(self) -> Prefixes | None:
        """The first prompts to share, of which the oldest are dropped; None: no sharing."""
        if not self.share:
            return None
        if self._prefixes is None:
            return {}
        drop_oldest(self._prefixes, self.batch_tokens)
        return self._prefixes

    def forget_prompts(self) -> None:
        """Free the first prompts that `cached_views` keeps."""
        if self._prefixes:
            self._prefixes.clear()

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

        def compute(batch: list[int]) -> list[TextLogprob]:
            tails = self._tails([rows[n] for n in batch], [len(texts[n]) for n in batch])
            return [TextLogprob(float(one.double().sum()), len(one)) for one in tails]

        scores = iter(self._in_batches(rows, 0, compute))
        return [[next(scores) for _ in some] for some in answers]

    def _tails(self, rows: Sequence[Encoded], lengths: Sequence[int]) -> list[torch.Tensor]:
        """Log-probabilities of the last `lengths` tokens of each row, (length,) each."""
        prefixes = self._known_prefixes()
        states = read(self.model, rows, row_features(self.views, rows), prefixes=prefixes).hidden
        found: list[torch.Tensor] = []
        for row, encoded, length in zip(states, rows, lengths, strict=True):
            logits = self.model.lm_head(row[len(row) - 1 - length : len(row) - 1]).float()
            ids = torch.from_numpy(encoded.ids[len(encoded.ids) - length :]).to(logits.device)
            found.append(logits.log_softmax(-1).gather(1, ids[:, None])[:, 0])
        return found

    @property
    def depth(self) -> int:
        """See `lfpc.policies.config.AttendingPolicy`."""
        return len(self.model.model.language_model.layers)

    @torch.no_grad()
    def view_attention(
        self, contexts: Sequence[Context], layers: Sequence[int]
    ) -> list[ViewAttention]:
        """See `lfpc.policies.config.AttendingPolicy`."""
        mark = self.encoder.text_ids(self.encoder.protocol.answer_mark)
        rows = [self.encoder.episode(context, Reply("", token_ids=mark)) for context in contexts]
        numbers = [layer - 1 for layer in layers]

        def compute(batch: list[int]) -> list[ViewAttention]:
            some = [rows[n] for n in batch]
            places = [self.encoder.first_view(row) for row in some]
            features = row_features(self.views, some)
            return view_attention(self.model, some, places, features, numbers)

        return self._in_batches(rows, 0, compute)

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


def _tried(compute: Callable[[list[int]], list[R]], batch: list[int]) -> list[R] | None:
    """The results; None: out of memory. The exception, which keeps the batch's tensors, ends
    here.
    """
    try:
        return compute(batch)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None


def _check_factor(model: Any, protocol: ChatProtocol) -> None:
    visual = model.model.visual
    side = visual.config.patch_size * visual.spatial_merge_size
    if side != protocol.factor:
        fitting = [name for name, one in PROTOCOLS.items() if one.factor == side]
        raise ConfigError(
            f"`protocol` {protocol.name} makes visual tokens of {protocol.factor} pixels, but this "
            f"checkpoint's are {side} pixels wide"
            + (f"; use `protocol` {' or '.join(fitting)}" if fitting else "")
        )


def row_features(views: ViewEncoder, rows: Sequence[Encoded]) -> list[list[torch.Tensor]]:
    """Features of the views of each row, from one call of the tower."""
    features = iter(views.features([view for row in rows for view in row.views]))
    return [[next(features) for _ in row.views] for row in rows]
