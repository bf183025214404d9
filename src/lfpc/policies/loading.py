"""A `PolicyConfig` as a policy: a checkpoint in this process (transformers or vLLM) or a server.

Torch is imported only where a checkpoint is loaded.
"""

from collections.abc import Callable
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING

from cachetools import cached

from lfpc.policies.config import PolicyConfig
from lfpc.policies.served import ServedPolicy, ServedSampling, Server
from lfpc.policies.vllm import VllmEngine, VllmPolicy
from lfpc.protocols import Coords, protocol_named

if TYPE_CHECKING:
    from lfpc.policies.transformers import TransformersPolicy


def load_policy(config: PolicyConfig, *, tools: bool = True) -> "TransformersPolicy":
    """The checkpoint `config.model` as a policy in this process."""
    return local_policies(config)(config, tools=tools)


def local_policies(config: PolicyConfig) -> "Callable[..., TransformersPolicy]":
    """Loads the checkpoint `config.model`, and makes policies of it: (config, tools=True) -> a
    policy sampled as that config says. What a protocol needs of the tokenizer is built once.
    """
    from lfpc.policies.qwen.checkpoint import (
        load_checkpoint,  # here, because torch is slow to import and a served model needs none
    )
    from lfpc.policies.transformers import TransformersPolicy

    model, tokenizer = load_checkpoint(Path(config.model))

    @cached({}, condition=Condition())  # tables of a vocabulary take half a second to build
    def built(protocol: str, coords: Coords, tools: bool) -> TransformersPolicy:
        return TransformersPolicy(model, tokenizer, protocol_named(protocol, coords), tools=tools)

    def policy(config: PolicyConfig, *, tools: bool = True) -> TransformersPolicy:
        return built(config.protocol, config.coords, tools).resampled(
            seed=config.sampling_seed or 0,
            temperature=config.temperature,
            top_p=config.top_p,
            max_new_tokens=config.max_new_tokens,
        )

    return policy


def served_policy(config: PolicyConfig, server: Server, *, tools: bool = True) -> ServedPolicy:
    """The model `config.model` of `server` as a policy."""
    sampling = ServedSampling(
        temperature=config.temperature,
        top_p=config.top_p,
        max_tokens=config.max_new_tokens,
        seed=config.sampling_seed,
        extra_body=config.extra_body,
    )
    return ServedPolicy(server, config.model, config.chat, sampling=sampling, tools=tools)


Host = Server | VllmEngine | None
"""Who computes the replies: a server, vLLM in this process, or (None) transformers in this
process."""
IN_VLLM = "vllm"
"""What a run's environment names as its device where vLLM computed the replies in this process."""


def any_policy(
    config: PolicyConfig, host: Host, *, tools: bool = True
) -> "TransformersPolicy | ServedPolicy | VllmPolicy":
    """The model `config.model`, asked where `host` says."""
    match host:
        case Server():
            return served_policy(config, host, tools=tools)
        case VllmEngine():
            return VllmPolicy(
                Path(config.model),
                config.chat,
                engine=host,
                temperature=config.temperature,
                top_p=config.top_p,
                max_tokens=config.max_new_tokens,
                seed=config.sampling_seed or 0,
                tools=tools,
            )
        case None:
            return load_policy(config, tools=tools)


def device_of(host: Host) -> str:
    """What a run's environment says of `host`; empty: this process."""
    return host.base_url if isinstance(host, Server) else IN_VLLM if host else ""
