"""Configuration of a policy: model, protocol, sampling. Torch-free."""

from dataclasses import dataclass

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
