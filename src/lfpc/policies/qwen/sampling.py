"""Sampling replies token by token, with the log-probability of every token.

Log-probabilities come from the softmax at the sampling temperature over the allowed tokens.
Training computes them with the same function.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase

from lfpc.dialogue import STOPPED, TRUNCATED
from lfpc.policies.qwen.attention import additive
from lfpc.policies.qwen.encode import END_OF_TURN, Encoded, token_id
from lfpc.policies.qwen.language import KeyValues, Read
from lfpc.policies.sampling import Sampling
from lfpc.policies.texts import NOT_SAMPLED

COMPACT_BELOW = 0.75
"""Share of unfinished rows below which finished rows are dropped from the batch."""
LOGIT_ELEMENTS = 2**25
"""Maximum logits at once in training: those of 220 tokens for 151,936 words."""
ROOM = 64
"""Growth of the key-value cache, in tokens."""


def _ids(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> list[int]:
    """Ids of those tokens that the tokenizer has."""
    return [found for token in tokens if (found := token_id(tokenizer, token)) is not None]


class Writer:
    """Allowed tokens of a tokenizer, and the end of a reply.

    Args:
        tokenizer: tokenizer of the model.
        stops: stop texts, which stay in the reply.
        vocabulary: rows of the model's output layer; those beyond the tokenizer's tokens are
            banned.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], vocabulary: int
    ) -> None:
        self.tokenizer = tokenizer
        self.stops = tuple(stops)
        ends = (END_OF_TURN, tokenizer.eos_token, tokenizer.pad_token)
        self.ends = set(_ids(tokenizer, [token for token in ends if isinstance(token, str)]))
        self.banned = torch.zeros(vocabulary, dtype=torch.bool)
        self.banned[_ids(tokenizer, NOT_SAMPLED)] = True
        self.banned[len(tokenizer) :] = True
        self._texts: dict[int, str] = {}

    def text(self, ids: Sequence[int]) -> str:
        """The text of a reply, without its end tokens."""
        return self._decode(ids[:-1] if ids and ids[-1] in self.ends else ids)

    def finish(self, ids: Sequence[int]) -> str:
        """The finish reason of a reply: `STOPPED` if an end token or a stop text ends it, else
        `TRUNCATED`.
        """
        text = self.text(ids)
        ended = (bool(ids) and ids[-1] in self.ends) or any(stop in text for stop in self.stops)
        return STOPPED if ended else TRUNCATED

    def is_over(self, token: int, tail: str) -> tuple[bool, str]:
        """(whether `token` ends a reply whose text ends in `tail`, new tail)."""
        if token in self.ends:
            return True, tail
        if token not in self._texts:
            self._texts[token] = self._decode([token])
        tail += self._texts[token]
        return any(stop in tail for stop in self.stops), tail[
            -max(map(len, self.stops), default=1) :
        ]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


def log_softmax(logits: Tensor, *, temperature: float, banned: Tensor) -> Tensor:
    """Log-probabilities for sampling.

        log softmax(logits / temperature) over the tokens that are not banned

    Args:
        logits: (..., vocabulary).
        temperature: 0 counts as 1.
        banned: (vocabulary,) bool.
    Returns:
        (..., vocabulary) float32; the lowest float for banned tokens.
    """
    scaled = logits.float() / (temperature or 1.0)
    return scaled.masked_fill(banned, torch.finfo(torch.float32).min).log_softmax(-1)


def token_logprobs(
    head: Callable[[Tensor], Tensor],
    states: Tensor,
    tokens: Tensor,
    *,
    temperature: float,
    banned: Tensor,
) -> Tensor:
    """Log-probabilities of tokens, as `log_softmax` has them. Many tokens are computed in pieces of
    `LOGIT_ELEMENTS`, whose logits are computed again in the backward pass.

    Args:
        head: the output layer.
        states: (tokens, hidden).
        tokens: (tokens,) int64.
        temperature, banned: see `log_softmax`.
    Returns:
        (tokens,) float32.
    """

    def piece(states: Tensor, tokens: Tensor) -> Tensor:
        table = log_softmax(head(states), temperature=temperature, banned=banned)
        return table.gather(1, tokens[:, None])[:, 0]

    size = max(1, LOGIT_ELEMENTS // len(banned))
    if len(tokens) <= size:
        return piece(states, tokens)
    found: Any = [
        checkpoint(piece, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(states.split(size), tokens.split(size), strict=True)
    ]
    return torch.cat(found)


@dataclass(slots=True)
class Written:
    """An unfinished reply."""

    ids: list[int]
    logprobs: list[float]
    tail: str = ""
    """End of the text, long enough to contain a stop text."""
    over: bool = False


@torch.no_grad()
def write(
    model: Any,
    rows: Sequence[Encoded],
    start: Read,
    writer: Writer,
    sampling: Sampling,
    randoms: torch.Generator | Tensor | None,
) -> list[Written]:
    """One reply per row, sampled in a batch.

    Args:
        start: the rows as read; their cache is consumed.
        randoms: random generator on the model's device, or (rows, max_new_tokens) float64 numbers
            in [0, 1), with which a row's tokens do not depend on the other rows.
    """
    replies = [Written([], []) for _ in rows]
    live = list(range(len(rows)))
    if isinstance(randoms, Tensor):
        randoms = randoms.to(model.device)
    place = torch.tensor([int(row.positions[0, -1]) + 1 for row in rows], device=model.device)
    banned = writer.banned.to(model.device)
    hidden = start.hidden[:, -1]
    cache = start.cache
    visible = start.visible
    for written in range(sampling.max_new_tokens):
        logprobs = log_softmax(
            model.lm_head(hidden), temperature=sampling.temperature, banned=banned
        )
        own = randoms[live, written] if isinstance(randoms, Tensor) else randoms
        tokens = _draw(logprobs, sampling, own)
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        going = _note(replies, live, tokens.tolist(), chosen.tolist(), writer)
        if not any(going) or written + 1 == sampling.max_new_tokens:
            break
        if sum(going) < COMPACT_BELOW * len(going):
            keep = torch.tensor([n for n, goes in enumerate(going) if goes], device=model.device)
            cache.select(keep)
            tokens = tokens[keep]
            place = place[keep]
            visible = visible[keep]
            live = [row for row, goes in zip(live, going, strict=True) if goes]
        visible = torch.cat([visible, visible.new_ones(len(visible), 1)], dim=1)
        hidden = _step(model, tokens, place, visible, cache)
        place = place + 1
    return replies


def _note(
    replies: list[Written],
    live: list[int],
    tokens: list[int],
    logprobs: list[float],
    writer: Writer,
) -> list[bool]:
    """Append a token to every live reply; returns which of them continue."""
    for row, token, logprob in zip(live, tokens, logprobs, strict=True):
        reply = replies[row]
        if not reply.over:
            reply.ids.append(token)
            reply.logprobs.append(logprob)
            reply.over, reply.tail = writer.is_over(token, reply.tail)
    return [not replies[row].over for row in live]


def _step(model: Any, tokens: Tensor, place: Tensor, visible: Tensor, cache: KeyValues) -> Tensor:
    """(rows, hidden) states after one more token per row."""
    embeds = model.get_input_embeddings()(tokens[:, None])
    return model.model.language_model(
        inputs_embeds=embeds,
        position_ids=place[None, :, None].expand(3, -1, -1),
        attention_mask=additive(visible, embeds.dtype)[:, None, None],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[:, 0]


def _draw(logprobs: Tensor, sampling: Sampling, randoms: torch.Generator | Tensor | None) -> Tensor:
    """(rows,) tokens from (rows, vocabulary) log-probabilities, by a generator or by one number in
    [0, 1) per row.
    """
    if sampling.temperature == 0:
        return logprobs.argmax(-1)
    if sampling.top_p < 1:
        ordered, order = logprobs.sort(-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter(
            1, order, before >= sampling.top_p * ordered.exp().sum(-1, keepdim=True)
        )
        logprobs = logprobs.masked_fill(dropped, float("-inf"))
    if not isinstance(randoms, Tensor):
        return torch.multinomial(logprobs.exp(), 1, generator=randoms)[:, 0]
    return inverse_cdf(logprobs.exp(), randoms)


def inverse_cdf(chances: Tensor, numbers: Tensor) -> Tensor:
    """Tokens by inverse transform sampling.

        token = the first whose cumulative chance exceeds number * (sum of all chances)

    Args:
        chances: (rows, vocabulary), not necessarily normalised. A chance of 0 is never drawn.
        numbers: (rows,) float64 in [0, 1).
    Returns:
        (rows,) token numbers.
    """
    cumulative = chances.double().cumsum(-1)
    total = cumulative[:, -1:]
    # rounding must not reach the total, beyond which there is no token
    wanted = torch.minimum(numbers[:, None] * total, torch.nextafter(total, total.new_zeros(1)))
    return torch.searchsorted(cumulative, wanted, right=True)[:, 0]
