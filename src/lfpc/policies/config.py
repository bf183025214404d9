"""Which model replies, how it is spoken to and how its replies are sampled. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lfpc.protocols import ChatProtocol, Coords, protocol_named


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """A model, its protocol and its sampling."""

    model: str
    """Checkpoint folder, or the name of a served model."""
    protocol: str = "qwen2_5_vl"
    """What the model reads and writes; a name in `lfpc.protocols`."""
    coords: Coords = "mapped"
    """How boxes are read; see `lfpc.protocols.base.Coords`."""
    max_new_tokens: int = 512
    """Token limit of a reply."""
    temperature: float = 0.0
    """Sampling temperature; 0: greedy."""
    top_p: float = 1.0
    """Nucleus sampling: share of the probability mass that is sampled from."""
    sampling_seed: int | None = None
    """Sampling seed. None: 0 for a local checkpoint, unset for a server."""
    extra_body: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further fields of each request to a server."""

    @property
    def chat(self) -> ChatProtocol:
        """What the model reads and writes."""
        return protocol_named(self.protocol, self.coords)
