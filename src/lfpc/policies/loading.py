"""Policies from a `PolicyConfig`: a checkpoint in this process (transformers or vLLM) or a server.

Torch is imported only to load a checkpoint, the client only to ask a server.
"""

from collections.abc import Callable
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING, Any

from cachetools import cached

from lfpc.policies.backends import Backend, Server, Transformers, VllmEngine
from lfpc.policies.bases import model_type
from lfpc.policies.config import PolicyConfig
from lfpc.policies.replicated import ReplicatedPolicy
from lfpc.policies.vllm import VllmPolicy
from lfpc.protocols import Coords, ProtocolFile, protocol_named

if TYPE_CHECKING:
    from lfpc.policies.generate import GeneratePolicy
    from lfpc.policies.served import ServedPolicy
    from lfpc.policies.transformers import TransformersPolicy

    LocalPolicy = TransformersPolicy | GeneratePolicy


def load_policy(
    config: PolicyConfig, *, tools: bool = True, engine: Transformers | None = None
) -> "LocalPolicy":
    """The checkpoint `config.model` as a policy in this process; None: the engine's defaults."""
    return local_policies(config, engine)(config, tools=tools)


def local_policies(
    config: PolicyConfig, engine: Transformers | None = None
) -> "Callable[..., LocalPolicy]":
    """A factory of policies on the checkpoint `config.model`, which is loaded once: (config,
    tools=True) -> policy with that sampling. Tokenizer tables are built once per protocol.

    An architecture without a batched engine is loaded as a `GeneratePolicy`.

    Raises:
        ConfigError: the device of `engine` is unavailable.
        CheckpointError: the checkpoint does not load.
    """
    path = Path(config.model)
    family = model_type(path)
    # here, because torch is slow to import and unused by a served model
    from lfpc.policies.devices import placed
    from lfpc.policies.qwen.architectures import ARCHITECTURES
    from lfpc.policies.qwen.checkpoint import load_checkpoint

    engine = engine or Transformers()
    device, dtype = placed(engine)
    bounds: dict[str, Any] = {}
    if family in ARCHITECTURES:
        from lfpc.policies.transformers import TransformersPolicy as Policy

        model, reader = load_checkpoint(path, dtype=dtype, device=device)
        bounds = {"batch_tokens": engine.batch_tokens}
    else:
        from lfpc.policies.generate import GeneratePolicy as Policy
        from lfpc.policies.generate import load_any

        model, reader = load_any(path, dtype=dtype, device=device)

    @cached({}, condition=Condition())  # the tables of a vocabulary take half a second to build
    def built(protocol: str | ProtocolFile, coords: Coords, tools: bool) -> "LocalPolicy":
        chat = protocol_named(protocol, coords)
        return Policy(model, reader, chat, tools=tools, name=config.model, **bounds)

    def policy(config: PolicyConfig, *, tools: bool = True) -> "LocalPolicy":
        return built(config.protocol, config.coords, tools).resampled(config)

    return policy


def served_policy(config: PolicyConfig, server: Server, *, tools: bool = True) -> "ServedPolicy":
    """The model `config.model` on `server` as a policy."""
    from lfpc.policies.served import ServedPolicy

    return ServedPolicy(server, config.model, config.chat, sampling=config, tools=tools)


def any_policy(
    config: PolicyConfig, backend: Backend, *, tools: bool = True
) -> "LocalPolicy | ReplicatedPolicy | ServedPolicy | VllmPolicy":
    """The model `config.model` on any backend as a policy."""
    if not isinstance(backend, Server):
        model_type(Path(config.model))  # a wrong one fails before torch or vLLM is imported
    match backend:
        case Server():
            return served_policy(config, backend, tools=tools)
        case VllmEngine():
            return VllmPolicy(
                Path(config.model),
                config.chat,
                engine=backend,
                sampling=config,
                tools=tools,
            )
        case Transformers() if len(backend.devices) > 1:
            return ReplicatedPolicy(config, backend, tools=tools)
        case Transformers() | None:
            return load_policy(config, tools=tools, engine=backend)
