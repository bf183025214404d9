"""Which model replies, how it is spoken to and how its replies are sampled. Torch-free."""

from dataclasses import dataclass

from lfpc.policies.sampling import Sampling
from lfpc.protocols import ChatProtocol, Coords, protocol_named


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig(Sampling):
    """A model, its protocol and its sampling."""

    model: str
    """Checkpoint folder, or the name of a served model."""
    protocol: str = "qwen2_5_vl"
    """What the model reads and writes; a name in `lfpc.protocols`."""
    coords: Coords = "mapped"
    """How boxes are read; see `lfpc.protocols.base.Coords`."""

    @property
    def chat(self) -> ChatProtocol:
        """What the model reads and writes."""
        return protocol_named(self.protocol, self.coords)
