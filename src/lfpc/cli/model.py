"""Options of the verbs that ask a model. Imports stay inside, see `lfpc.cli`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from lfpc.errors import ConfigError
from lfpc.options import Group, fields_of
from lfpc.policies.backends import (
    VLLM_BACKEND,
    Backend,
    Requests,
    Server,
    Transformers,
    VllmEngine,
)
from lfpc.policies.sampling import Sampling

if TYPE_CHECKING:
    from lfpc.evaluation.config import EvaluationConfig
    from lfpc.policies.settings import CheckpointSettings
    from lfpc.protocols import ProtocolFile

_WHICH = "give either --checkpoint, or --base-url and --model"


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Options of the backend: a server, or transformers or vLLM in this process."""

    base_url: Annotated[str | None, arg(metavar="URL")] = None
    """Address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1; the key comes from
    OPENAI_API_KEY."""
    transformers: Group[Transformers] = field(default_factory=Transformers)
    requests: Annotated[Group[Requests], arg(name="server")] = field(default_factory=Requests)
    vllm: Group[VllmEngine] = field(default_factory=VllmEngine)

    def backend(self, name: str | None) -> Backend:
        """The backend for `name`: a server's address, `VLLM_BACKEND`, or None for transformers."""
        if name == VLLM_BACKEND:
            return self.vllm
        if name is None:
            return self.transformers
        return Server(base_url=name, **fields_of(Requests, self.requests))


@dataclass(frozen=True, kw_only=True)
class AnsweringModel(BackendOptions):
    """Options of the model: a checkpoint in this process, or a served model."""

    FIRST: ClassVar = (
        "out",
        "checkpoint",
        "base_url",
        "model",
        "protocol",
        "options",
        "budget",
    )

    checkpoint: Path | None = None
    """Checkpoint to load into this process, a folder or a hub id in the local cache; or give
    --base-url and --model."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """Backend of a checkpoint in this process."""
    model: Annotated[str | None, arg(metavar="NAME")] = None
    """Name of the served model."""
    protocol: Annotated[str | None, arg(metavar="NAME|FILE.toml")] = None
    """Prompt and reply format of the model's family: qwen2_5_vl, qwen3_vl, qwen3_vl_user,
    qwen3_vl_text, deepeyes, chain_of_focus, mini_o3, pixel_reasoner, ergo, thyme; or a
    TOML file with a fine-tune's own (docs/protocols.md). Default: the checkpoint's (lfpc.json),
    else that of its architecture, else qwen2_5_vl."""
    max_new_tokens: int | None = None
    """Token limit of a reply. Default: the checkpoint's (lfpc.json), else 512."""
    sampling: Group[Sampling] = field(default_factory=Sampling)

    def defaults(self) -> "CheckpointSettings":
        """Defaults of the options: the checkpoint's settings."""
        from lfpc.policies.settings import CheckpointSettings, checkpoint_settings

        if self.checkpoint is None:
            return CheckpointSettings()
        if self.base_url is not None or self.model is not None:
            raise ConfigError(_WHICH)
        return checkpoint_settings(self.checkpoint)

    def spoken(self, defaults: "CheckpointSettings") -> "str | ProtocolFile":
        """The protocol: the given one, else that of the `defaults`."""
        from lfpc.protocols import protocol_given

        return defaults.protocol if self.protocol is None else protocol_given(self.protocol)

    def asked(self, *, seed: int = 0, **settings: Any) -> "tuple[EvaluationConfig, Backend]":
        """The configuration, without budget and probe, and the backend."""
        from lfpc.evaluation.config import EvaluationConfig
        from lfpc.policies.settings import checkpoint_name

        served = self.base_url is not None
        if (self.checkpoint is not None) == served or (self.model is not None) != served:
            raise ConfigError(_WHICH)
        if served and self.engine != "transformers":
            raise ConfigError(
                f"--engine {self.engine} computes a checkpoint's replies; with --base-url "
                f"the server does"
            )
        defaults = self.defaults()
        limit = defaults.max_new_tokens if self.max_new_tokens is None else self.max_new_tokens
        sampling = replace(self.sampling, max_new_tokens=limit)
        config = EvaluationConfig(
            model=self.model or checkpoint_name(self.checkpoint or Path()),
            budget=None,
            probe="own",
            protocol=self.spoken(defaults),
            seed=seed,
            **fields_of(Sampling, sampling),
            **settings,
        )
        return config, self.backend(
            self.base_url or (VLLM_BACKEND if self.engine == "vllm" else None)
        )


@dataclass(frozen=True, kw_only=True)
class AskedModel(AnsweringModel):
    """Options of a model that is asked with the crop tool."""

    coords: Literal["mapped", "as-released"] = "mapped"
    """Reading of a reply's calls and boxes. mapped: as the prompt asks for them; as-released: as
    the family's published script treats them."""
    crop_tokens: tuple[int, int] | None = None
    """Minimum and maximum visual tokens of a crop. Default: the checkpoint's (lfpc.json), else the
    protocol's."""
    max_turns: int | None = None
    """Turn limit of an episode. Default: the checkpoint's (lfpc.json), else 6."""

    def asked(self, *, seed: int = 0, **settings: Any) -> "tuple[EvaluationConfig, Backend]":
        """The configuration with its crop rules, and the backend."""
        from lfpc.protocols import protocol_named

        defaults = self.defaults()
        protocol = self.spoken(defaults)
        crop = defaults.crop_for(protocol)
        if self.crop_tokens is not None:
            least, most = self.crop_tokens
            if not 1 <= least <= most:
                raise ConfigError(
                    f"--crop-tokens are two numbers from 1 in ascending order, got {least} {most}"
                )
            rules = protocol_named(protocol, self.coords).crop
            crop = replace(rules, min_tokens=least, max_tokens=most)
        turns = defaults.max_turns if self.max_turns is None else self.max_turns
        return super().asked(seed=seed, coords=self.coords, crop=crop, max_turns=turns, **settings)


def several(words: Sequence[str]) -> list[str]:
    """Words separated by spaces or commas."""
    return [word for some in words for word in some.split(",") if word]


def whole_numbers(option: str, words: Sequence[str]) -> list[int]:
    """`several` whole numbers of 1 or more.

    Raises:
        ConfigError: a word is no such number; the message names the option.
    """
    try:
        numbers = [int(word) for word in several(words)]
    except ValueError:
        numbers = [0]
    if min(numbers, default=1) < 1:
        raise ConfigError(f"{option} must be whole numbers of 1 or more, got {' '.join(words)}")
    return numbers
