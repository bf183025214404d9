"""Models as policies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lfpc.api.checks import checked
from lfpc.errors import ConfigError
from lfpc.policies.backends import (
    BATCH_TOKENS,
    VLLM_BACKEND,
    Server,
    Transformers,
    VllmEngine,
)
from lfpc.policies.config import ModelPolicy, PolicyConfig
from lfpc.policies.settings import checkpoint_name, checkpoint_settings
from lfpc.protocols import Coords, protocol_given


def load_policy(
    checkpoint: Path | str,
    *,
    protocol: str | None = None,
    coords: Coords = "mapped",
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    sampling_seed: int | None = None,
    engine: Literal["transformers", "vllm"] = "transformers",
    engine_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    dtype: Literal["auto", "bfloat16", "float32"] = "auto",
    batch_tokens: int = BATCH_TOKENS,
) -> ModelPolicy:
    """A checkpoint in this process as a policy.

    Args:
        checkpoint: Hugging Face folder of a Qwen-VL model.
        protocol: prompt and reply format, a name in docs/protocols.md or the path of a protocol
            file. None: the checkpoint's (lfpc.json), else qwen2_5_vl.
        coords: reading of a reply's calls and boxes. mapped: as the prompt defines them;
            as-released: as the family's published script treats them.
        max_new_tokens: token limit of a reply. None: the checkpoint's, else 512.
        temperature: sampling temperature; 0: greedy.
        top_p: share of the probability mass to sample from, in (0, 1].
        sampling_seed: seed of the sampling; None: 0.
        engine: backend of the checkpoint.
        engine_options: with vllm, arguments of `vllm.LLM`, such as {"max_model_len": 32768}.
        device: with transformers, auto (a GPU if there is one), cpu, cuda, cuda:1 or mps; or
            several, such as cuda:0,cuda:1, with a copy of the model on each.
        dtype: with transformers, precision; auto: bfloat16 on a GPU, float32 on the CPU.
        batch_tokens: with transformers, maximum tokens of a batch.
    Raises:
        CheckpointError: no such folder, or not a supported checkpoint.
        ConfigError: unknown protocol, a value out of range, or vLLM is not installed.
    """
    from lfpc.policies.loading import any_policy

    if engine not in ("transformers", VLLM_BACKEND):
        raise ConfigError(f"`engine` must be transformers or vllm, got {engine!r}")
    if engine_options and engine != VLLM_BACKEND:
        raise ConfigError("`engine_options` need engine='vllm'")
    defaults = checkpoint_settings(Path(checkpoint))
    config = checked(
        PolicyConfig,
        model=checkpoint_name(Path(checkpoint)),
        protocol=protocol_given(protocol) if protocol else defaults.protocol,
        coords=coords,
        max_new_tokens=defaults.max_new_tokens if max_new_tokens is None else max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        sampling_seed=sampling_seed,
    )
    if engine == VLLM_BACKEND:
        return any_policy(config, VllmEngine(options=dict(engine_options or {})))
    return any_policy(config, Transformers(device=device, dtype=dtype, batch_tokens=batch_tokens))


def served_policy(
    base_url: str,
    model: str,
    *,
    protocol: str = "qwen2_5_vl",
    coords: Coords = "mapped",
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    sampling_seed: int | None = None,
    extra_body: Mapping[str, Any] | None = None,
    concurrency: int = 32,
    timeout_s: float = 600.0,
    retries: int = 6,
    picture_folder: Path | str | None = None,
) -> ModelPolicy:
    """A model behind an OpenAI-compatible server as a policy, without a request yet. The server's
    key comes from OPENAI_API_KEY.

    Args:
        base_url: address of the API, such as http://127.0.0.1:8000/v1.
        model: name of the model on the server.
        protocol, coords, max_new_tokens, temperature, top_p: see `load_policy`.
        sampling_seed: seed to send with each request; None: no seed.
        extra_body: further fields of each request, such as {"repetition_penalty": 1.0}.
        concurrency: concurrent episodes.
        timeout_s: time-out of a request without a response, in seconds; then it is retried.
        retries: retries of a failed request.
        picture_folder: folder from which the server reads pictures (vLLM:
            --allowed-local-media-path). None: pictures are sent with the request.
    Raises:
        ConfigError: unknown protocol, invalid address, or a value out of range.
    """
    from lfpc.policies import loading

    config = checked(
        PolicyConfig,
        model=model,
        protocol=protocol_given(protocol),
        coords=coords,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        sampling_seed=sampling_seed,
        extra_body=dict(extra_body or {}),
    )
    server = checked(
        Server,
        base_url=base_url,
        concurrency=concurrency,
        timeout_s=timeout_s,
        retries=retries,
        picture_folder=None if picture_folder is None else Path(picture_folder),
    )
    return loading.served_policy(config, server)
