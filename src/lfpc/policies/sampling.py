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
        if not self.temperature >= 0 or self.max_new_tokens < 1 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"sampling needs temperature >= 0, max_new_tokens >= 1 and 0 < top_p <= 1; got "
                f"{self.temperature}, {self.max_new_tokens} and {self.top_p}"
            )


GREEDY = Sampling()
"""Greedy sampling: the most likely token."""
