"""Backends, which compute a policy's replies: transformers or vLLM in this process, or a server.
Torch-free.

A backend changes the model's answers by rounding only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from tyro.conf import arg

from lfpc.errors import ConfigError
from lfpc.options import json_option
from lfpc.storage.typed import Changeable

BATCH_TOKENS = 65_536
"""Default tokens of a sampling batch: 64 conversations of 1,024, or 4 of 16,384."""
DTYPES = ("auto", "bfloat16", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Device and precision of a model in this process."""

    device: Changeable[str] = "auto"
    """Device: auto, cpu, cuda, cuda:1 or mps. auto: a GPU if there is one, else the CPU. eval,
    probe and select take several, such as cuda:0,cuda:1, with a copy of the model on each."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of matrix products, and of weights that are not trained. auto: bfloat16 on a GPU,
    float32 on the CPU."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"`dtype` must be one of {', '.join(DTYPES)}, got {self.dtype!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformers(Placement):
    """transformers in this process."""

    batch_tokens: Changeable[int] = BATCH_TOKENS
    """Tokens of a sampling batch, including those to be written, in this process without vLLM. A
    batch that runs out of memory is halved."""

    def __post_init__(self) -> None:
        Placement.__post_init__(self)
        if self.batch_tokens < 1:
            raise ConfigError(f"`batch_tokens` must be at least 1, got {self.batch_tokens}")

    @property
    def devices(self) -> list[str]:
        """The devices, one or several."""
        return [name for name in self.device.split(",") if name]


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


_ARGUMENTS = {
    "tensor_parallel": "tensor_parallel_size",
    "gpu_share": "gpu_memory_utilization",
    "max_model_len": "max_model_len",
}
"""Arguments of `vllm.LLM` by option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmLimits:
    """Memory and further arguments of vLLM in this process."""

    gpu_share: float | None = None
    """Share of a GPU's memory that vLLM takes. Default: vLLM's own."""
    max_model_len: int | None = None
    """Longest conversation of vLLM, in tokens. Default: the checkpoint's."""
    options: Annotated[
        Mapping[str, Any], json_option("engine_options"), arg(name="engine-options")
    ] = field(default_factory=dict[str, Any], hash=False)
    """Further arguments of `vllm.LLM`, such as {"enforce_eager": true}; they override the
    others."""

    def __post_init__(self) -> None:
        if self.max_model_len is not None and self.max_model_len < 1:
            raise ConfigError(f"`max_model_len` must be at least 1, got {self.max_model_len}")
        if self.gpu_share is not None and not 0 < self.gpu_share <= 1:
            raise ConfigError(f"`gpu_share` must be above 0 and at most 1, got {self.gpu_share}")

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `vllm.LLM` that are set."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        named = {_ARGUMENTS[name]: given[name] for name in given if name in _ARGUMENTS}
        return {name: value for name, value in named.items() if value is not None} | dict(
            self.options
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmEngine(VllmLimits):
    """vLLM in this process."""

    tensor_parallel: int | None = None
    """GPUs that vLLM divides the model among. Default: 1."""

    def __post_init__(self) -> None:
        VllmLimits.__post_init__(self)
        if self.tensor_parallel is not None and self.tensor_parallel < 1:
            raise ConfigError(f"`tensor_parallel` must be at least 1, got {self.tensor_parallel}")


Backend = Server | VllmEngine | Transformers | None
"""A server, vLLM or transformers in this process; None: transformers with its defaults."""
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
        case Transformers() | None:
            return TRANSFORMERS_BACKEND
