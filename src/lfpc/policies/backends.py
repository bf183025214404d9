"""Backends, which compute a policy's replies: transformers or vLLM in this process, or a server.
Torch-free.

A backend changes the model's answers by rounding only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from tyro.conf import arg

from lfpc.errors import ConfigError
from lfpc.options import json_option


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Limits of the requests to a server."""

    concurrency: int = 32
    """Concurrent episodes or questions at a server."""
    timeout_s: Annotated[float, arg(name="timeout")] = 600.0
    """Time-out of a request without a response, in seconds; then it is retried."""
    retries: int = 6
    """Retries of a failed request."""
    picture_folder: Path | None = None
    """Folder from which the server reads pictures (vLLM: --allowed-local-media-path). Default:
    pictures are sent with the request."""

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        if not self.timeout_s > 0:
            raise ConfigError(f"`timeout_s` must be above 0, got {self.timeout_s}")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Requests):
    """Address of a server, and the limits of its requests."""

    base_url: str
    """Address of the API, such as http://127.0.0.1:8000/v1."""

    def __post_init__(self) -> None:
        Requests.__post_init__(self)
        if not _is_address(self.base_url):
            raise ConfigError(
                f"`base_url` {self.base_url!r} is not the address of an API, such as "
                f"http://127.0.0.1:8000/v1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmEngine:
    """vLLM in this process."""

    options: Annotated[
        Mapping[str, Any], json_option("engine_options"), arg(name="engine-options")
    ] = field(default_factory=dict[str, Any])
    """Arguments of `vllm.LLM`, such as {"max_model_len": 32768, "tensor_parallel_size": 2}."""


Backend = Server | VllmEngine | None
"""A server, vLLM in this process, or (None) transformers in this process."""
VLLM_BACKEND = "vllm"
TRANSFORMERS_BACKEND = "transformers"
"""`backend_name` of transformers in this process."""


def backend_name(backend: Backend) -> str:
    """The backend's name in a run's environment: a server's address, "vllm" or "transformers"."""
    match backend:
        case Server():
            return backend.base_url
        case VllmEngine():
            return VLLM_BACKEND
        case None:
            return TRANSFORMERS_BACKEND
