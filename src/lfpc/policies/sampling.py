"""Sampling of a policy's replies, on any backend. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from lfpc.errors import ConfigError
from lfpc.options import NotAnOption, json_option


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling of replies."""

    max_new_tokens: NotAnOption[int] = 512
    """Token limit of a reply. Not an option here, because its default depends on the checkpoint."""
    temperature: float = 0.0
    """Sampling temperature; 0: greedy, with log-probabilities at temperature 1."""
    top_p: float = 1.0
    """Nucleus sampling: share of the probability mass to sample from. Log-probabilities still cover
    all tokens."""
    sampling_seed: int | None = None
    """Sampling seed, from which each reply has its own by question and turn. Default: 0 for local
    checkpoints, unset for servers."""
    extra_body: Annotated[Mapping[str, Any], json_option("extra_body")] = field(
        default_factory=dict[str, Any]
    )
    """Further fields of each request to a server, such as {"repetition_penalty": 1.0}."""

    def __post_init__(self) -> None:
        for name, fits, range_ in (
            ("temperature", self.temperature >= 0, "at least 0"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
        ):
            if not fits:
                raise ConfigError(f"`{name}` must be {range_}, got {getattr(self, name)}")


GREEDY = Sampling()
"""Greedy sampling: the most likely token."""
