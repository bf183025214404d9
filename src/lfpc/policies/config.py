"""Configuration of a policy: model, protocol, sampling. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol, Self, runtime_checkable

import numpy as np

from lfpc.dialogue import Context, Reply
from lfpc.options import fields_of
from lfpc.policies.backends import Backend
from lfpc.policies.sampling import Sampling
from lfpc.protocols import ChatProtocol, Coords, ProtocolFile, protocol_named
from lfpc.storage.typed import Changeable


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig(Sampling):
    """A model, its protocol and its sampling."""

    model: Changeable[str]
    """Checkpoint folder, or the name of a served model."""
    protocol: str | ProtocolFile = "qwen2_5_vl"
    """Name of a protocol in `lfpc.protocols`, or the content of a protocol file."""
    coords: Coords = "mapped"
    """Reading of boxes; see `lfpc.protocols.base.Coords`."""

    @property
    def chat(self) -> ChatProtocol:
        """The protocol."""
        return protocol_named(self.protocol, self.coords)


def policy_config(model: str, protocol: ChatProtocol, sampling: Sampling) -> PolicyConfig:
    """The configuration of a policy with these parts."""
    return PolicyConfig(
        model=model,
        protocol=protocol.given,
        coords=protocol.coords,
        **fields_of(Sampling, sampling),
    )


def reply_seed(seed: int, context: Context) -> int:
    """Seed of one reply: 31 bits that depend on the sampling seed, the question and the turn, and
    on nothing else, such as batches, or other budgets and probes of the run.
    """
    text = f"{seed}/{len(context.turns)}/{context.key}"
    digest = sha256(text.encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:4]) >> 1  # some servers keep seeds as signed 32-bit numbers


@dataclass(frozen=True, slots=True)
class TextLogprob:
    """Log-probability of a given text."""

    total: float
    """Sum over its tokens, in nats, at temperature 1 over the whole vocabulary."""
    tokens: int


@runtime_checkable
class ScoringPolicy(Protocol):
    """A policy that gives the log-probability of texts that it did not write."""

    def answer_logprobs(
        self, contexts: Sequence[Context], answers: Sequence[Sequence[str]]
    ) -> list[list[TextLogprob]]:
        """Log-probability of each answer, written after the protocol's `answer_mark` as the next
        reply.

        Args:
            contexts: the conversations.
            answers: the answers to score in each of them.
        Raises:
            PolicyError: the backend gives no log-probabilities of prompts.
        """
        ...


@dataclass(frozen=True, slots=True)
class ViewAttention:
    """Attention to the first view's visual tokens, averaged over heads. Each map is (layers, rows,
    columns) float32; all tokens of the conversation together have 1.
    """

    question: np.ndarray
    """Mean over the tokens between the view and the reply: the question, its options and what
    follows them."""
    answer: np.ndarray
    """At the token where the answer begins, after the protocol's `answer_mark`."""


@runtime_checkable
class AttendingPolicy(Protocol):
    """A policy that gives its attention."""

    @property
    def depth(self) -> int:
        """Number of layers of the language model."""
        ...

    def view_attention(
        self, contexts: Sequence[Context], layers: Sequence[int]
    ) -> list[ViewAttention]:
        """Attention to the first view, before any reply.

        Args:
            contexts: the first contexts of episodes.
            layers: numbers of the layers, from 1 to `depth`.
        Raises:
            PolicyError: a single conversation needs more memory than there is.
        """
        ...


@runtime_checkable
class ModelPolicy(Protocol):
    """A policy with a model: a checkpoint in this process, or a served model."""

    @property
    def config(self) -> PolicyConfig:
        """The model, its protocol and its sampling."""
        ...

    @property
    def backend(self) -> Backend:
        """The backend of its replies."""
        ...

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in the same order."""
        ...

    def reseed(self, seed: int | None) -> None:
        """Restart the random generator from `seed`; None: the backend's default."""
        ...

    def without_tools(self) -> Self:
        """The same model without the tool, which answers at once."""
        ...
