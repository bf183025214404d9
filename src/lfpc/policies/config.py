"""Configuration of a policy: model, protocol, sampling. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from lfpc.dialogue import Context, Reply
from lfpc.options import fields_of
from lfpc.policies.backends import Backend
from lfpc.policies.sampling import Sampling
from lfpc.protocols import ChatProtocol, Coords, protocol_named


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig(Sampling):
    """A model, its protocol and its sampling."""

    model: str
    """Checkpoint folder, or the name of a served model."""
    protocol: str = "qwen2_5_vl"
    """Name of a protocol in `lfpc.protocols`."""
    coords: Coords = "mapped"
    """Reading of boxes; see `lfpc.protocols.base.Coords`."""

    @property
    def chat(self) -> ChatProtocol:
        """The protocol by its name."""
        return protocol_named(self.protocol, self.coords)


def policy_config(model: str, protocol: ChatProtocol, sampling: Sampling) -> PolicyConfig:
    """The configuration of a policy with these parts."""
    return PolicyConfig(
        model=model,
        protocol=protocol.name,
        coords=protocol.coords,
        **fields_of(Sampling, sampling),
    )


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
