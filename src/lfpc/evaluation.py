"""One evaluation: any model, in this process or served, at one budget under one probe, in one run folder."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfpc.episode import AsyncPolicy, Policy
from lfpc.errors import ConfigError
from lfpc.evaluate.metrics import Row
from lfpc.evaluate.probes import PROBES
from lfpc.evaluate.replay import begin_replay
from lfpc.evaluate.run import evaluate
from lfpc.images import CropRules
from lfpc.policies.served import ServedPolicy, ServedSampling, Server
from lfpc.policies.vllm import VllmEngine, VllmPolicy
from lfpc.protocols import ChatProtocol, Coords, protocol_named
from lfpc.rewards import RewardConfig, episode_reward
from lfpc.runs import RunFolder
from lfpc.samples import Sample

if TYPE_CHECKING:
    from lfpc.policies.transformers import TransformersPolicy

SHOWN_REWARD = RewardConfig(grounding=1.0)
"""Whose terms an evaluation row keeps for a reader, whatever the model was trained with: Stage II's, which has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """What one evaluation folder holds. Where and how fast a model is served is no part of it: a run may go on elsewhere."""

    model: str
    """A checkpoint's folder, or the name of a served model."""
    budget: int | None
    """Visual tokens of the first view; None: each sample's own."""
    probe: str
    """What the crop tool shows; a name in `lfpc.evaluate.probes.PROBES`."""
    crop: CropRules | None = None
    """How a crop becomes a picture; None: as the protocol has it."""
    protocol: str = "qwen2_5_vl"
    coords: Coords = "mapped"
    """How boxes are read; see `lfpc.protocols.base.Coords`."""
    max_turns: int = 6
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    sampling_seed: int | None = None
    """Of the model's random numbers; None: a checkpoint's 0, a server's own."""
    extra_body: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further fields of each request to a server."""
    seed: int = 0
    """Of the noise and of the other pictures."""
    replay: bool = False
    """Whether the recorded replies up to the first crop are given again; False: the policy starts afresh."""

    def __post_init__(self) -> None:
        if self.probe not in PROBES:
            raise ConfigError(f"unknown probe {self.probe!r}; known are {', '.join(PROBES)}")
        if self.crop_rules.factor != self.chat.factor:
            raise ConfigError(
                f"crop.factor is {self.crop_rules.factor}, but a visual token of {self.protocol} is {self.chat.factor} pixels wide"
            )

    @property
    def chat(self) -> ChatProtocol:
        """What the model reads and writes."""
        return protocol_named(self.protocol, self.coords)

    @property
    def crop_rules(self) -> CropRules:
        """The crop rules that hold."""
        return self.crop or self.chat.crop


def load_policy(config: EvaluationConfig, *, tools: bool = True) -> "TransformersPolicy":
    """The checkpoint `config.model` as a policy in this process."""
    return local_policies(config)(config, tools=tools)


def local_policies(config: EvaluationConfig) -> "Callable[..., TransformersPolicy]":
    """Loads the checkpoint `config.model`, and makes policies of it: (config, tools=True) -> a policy sampled as that config says."""
    from lfpc.policies.checkpoint import load_checkpoint  # here, because torch is slow to import and a served model needs none
    from lfpc.policies.transformers import TransformersPolicy

    model, tokenizer = load_checkpoint(Path(config.model))

    def policy(config: EvaluationConfig, *, tools: bool = True) -> TransformersPolicy:
        return TransformersPolicy(
            model,
            tokenizer,
            config.chat,
            temperature=config.temperature,
            top_p=config.top_p,
            max_new_tokens=config.max_new_tokens,
            seed=config.sampling_seed or 0,
            tools=tools,
        )

    return policy


def served_policy(config: EvaluationConfig, server: Server, *, tools: bool = True) -> ServedPolicy:
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
"""Who computes the replies: a server, vLLM in this process, or (None) transformers in this process."""
IN_VLLM = "vllm"
"""What a run's environment names as its device where vLLM computed the replies in this process."""


def any_policy(config: EvaluationConfig, host: Host, *, tools: bool = True) -> "TransformersPolicy | ServedPolicy | VllmPolicy":
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


def evaluate_probe(
    policy: Policy | AsyncPolicy,
    samples: Sequence[Sample],
    config: EvaluationConfig,
    out: Path,
    *,
    own: Sequence[Row] = (),
    extra: Mapping[str, Any] | None = None,
    device: str = "",
    progress: bool = True,
) -> list[dict[str, Any]]:
    """One row per sample under one probe, in the run folder `out`; rows that are there are not asked again.

    A replay is of `own`, the rows under the policy's own crops: questions that failed there are left out.
    """
    run, facts = RunFolder.open(out, config, device=device), {**(extra or {}), "probe": config.probe, "seed": config.seed}
    before = begin_replay(run, own, facts) if config.replay else {}
    recorded = {row["sample"] for row in own if "error" not in row}
    with getattr(policy, "cached_views", nullcontext)():
        return evaluate(
            [sample for sample in samples if sample.id in recorded] if config.replay else samples,
            policy,
            protocol=config.chat,
            budget=config.budget,
            look=PROBES[config.probe](samples, config.crop_rules, config.seed),
            run=run,
            max_turns=config.max_turns,
            before=before,
            reward=lambda played: episode_reward(played, SHOWN_REWARD),
            extra=facts,
            progress=progress,
            label=" ".join([*map(str, (extra or {}).values()), config.probe]),
        )
