"""What computes a policy's replies: transformers or vLLM in this process, or a server. Torch-free.

A backend does not change what the model answers, but for rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from lfpc.errors import ConfigError
from lfpc.options import json_option


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """How a server is asked."""

    concurrency: int = 32
    """Episodes or questions in flight at a server."""
    timeout_s: Annotated[float, arg(name="timeout")] = 600.0
    """Seconds without a sign of the server after which a request is made again."""
    retries: int = 6
    """Further tries of a failed request."""
    picture_folder: Path | None = None
    """Folder from which the server reads pictures (vLLM: --allowed-local-media-path). Default:
    pictures are part of the request."""

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s must be more than 0, got {self.timeout_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Requests):
    """Where a model is served, and how the server is asked."""

    base_url: str
    """Address of the API, as in http://127.0.0.1:8000/v1."""

    def __post_init__(self) -> None:
        Requests.__post_init__(self)
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"base_url {self.base_url!r} is no address of an API, as "
                f"http://127.0.0.1:8000/v1 is"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmEngine:
    """vLLM in this process."""

    options: Annotated[
        Mapping[str, Any], json_option("engine_options"), arg(name="engine-options")
    ] = field(default_factory=dict[str, Any])
    """Arguments of `vllm.LLM`, as in {"max_model_len": 32768, "tensor_parallel_size": 2}."""


Backend = Server | VllmEngine | None
"""A server, vLLM in this process, or (None) transformers in this process."""
VLLM_BACKEND = "vllm"
TRANSFORMERS_BACKEND = "transformers"
"""`backend_name` of what computes in this process."""


def backend_name(backend: Backend) -> str:
    """What a run's environment names as its backend: a server's address, or what computed in this
    process.
    """
    match backend:
        case Server():
            return backend.base_url
        case VllmEngine():
            return VLLM_BACKEND
        case None:
            return TRANSFORMERS_BACKEND
