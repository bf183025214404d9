"""A training run's configuration. An ablation is `dataclasses.replace(config, ...)`; see
`presets`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from lfpc.episode import Episode
from lfpc.errors import ConfigError
from lfpc.images import CropRules, check_budget
from lfpc.options import Group, NotAnOption, pairs, word_option
from lfpc.policies.backends import DTYPES, Transformers, VllmLimits
from lfpc.protocols import ChatProtocol, ProtocolFile, protocol_named
from lfpc.protocols.option import PROTOCOL_OPTION
from lfpc.rewards import RewardConfig
from lfpc.storage.typed import Changeable
from lfpc.training.groups import AdvantageScale

Aggregation = Literal["token-mean", "sequence-mean"]
"""Average of the loss: over the tokens or over the rollouts of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters (through peft) in place of training every weight."""

    rank: int = 16
    """Adapter rank."""
    alpha: int = 32
    """Adapter scale: the output is multiplied by alpha / rank."""
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the linear layers of the language model that get an adapter."""
    vision: bool = False
    """Whether all linear layers of the vision tower's blocks get an adapter as well."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not self.targets:
            raise ConfigError(
                f"`lora.rank` must be at least 1, `lora.alpha` above 0, `lora.targets` not empty; "
                f"got {self.rank}, {self.alpha} and {self.targets}"
            )


def _read_lora(words: Sequence[str]) -> LoraConfig:
    values = pairs("--lora", words, LORA_WORDS)
    if unknown := set(values) - {field.name for field in fields(LoraConfig)}:
        raise ConfigError(f"--lora takes {LORA_WORDS}; got {min(unknown)}=...")
    try:
        return LoraConfig(
            rank=int(values.get("rank", LoraConfig().rank)),
            alpha=int(values.get("alpha", LoraConfig().alpha)),
            targets=tuple(values["targets"].split(","))
            if "targets" in values
            else LoraConfig().targets,
            vision={"yes": True, "no": False}[values.get("vision", "no")],
        )
    except (ValueError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"--lora takes {LORA_WORDS}; got {' '.join(words)}") from error


def _lora_words(lora: LoraConfig | None) -> list[str]:
    if lora is None:
        return ["None"]
    return [
        f"rank={lora.rank}",
        f"alpha={lora.alpha}",
        f"targets={','.join(lora.targets)}",
        f"vision={'yes' if lora.vision else 'no'}",
    ]


LORA_WORDS = "rank=16 alpha=32 targets=q_proj,v_proj vision=yes, each of which may be left out"
MICRO_BATCH_TOKENS = 32_768
"""Default tokens of a micro-batch on the CPU, and the largest default on a GPU."""
Optimizer = Literal["adamw", "adamw-8bit"]
Sampler = Literal["transformers", "vllm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerLimits(VllmLimits):
    """vLLM as the sampler of rollouts (--sampler vllm)."""

    gpu_share: float | None = None
    """Share of the GPU's memory that vLLM takes between updates. Default: what weights and
    optimiser leave."""
    max_model_len: int | None = None
    """Longest conversation of vLLM, in tokens; longer ones count as `overlong`. Default:
    --max-rollout-tokens and --max-new-tokens together, if the checkpoint has as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(Transformers):
    """One run of reinforcement learning, from a checkpoint and a samples folder to a checkpoint."""

    FIRST: ClassVar = ("data", "init", "out", "validation", "protocol", "steps", "lora", "seed")

    data: Changeable[Path] = Path("data")
    """Samples folder to train on."""
    init: Changeable[Path] = Path("checkpoint")
    """Checkpoint to start from, a folder or a hub id in the local cache."""
    out: Changeable[Path] = Path("out/train")
    """Run folder; an existing run continues."""
    validation: Changeable[Path | None] = None
    """Samples folder for validation. Default: no validation and no best checkpoint."""

    first_view: Literal["selected", "random", "original", "fixed"] = "selected"
    """First-view budget. selected: each sample's own `budget` (the information gap); random: the
    selected budgets, dealt to the samples at random; original: the original's resolution; fixed:
    one budget for all samples."""
    fixed_budget: int = 1024
    """Visual tokens of a first view, with --first-view fixed."""
    original_budget: int = 16384
    """Maximum visual tokens of a first view, with --first-view original."""
    crop: CropRules = field(default_factory=CropRules)
    """Resolution of a crop, in visual tokens."""
    protocol: Annotated[str | ProtocolFile, PROTOCOL_OPTION] = "qwen2_5_vl"
    """Prompt and reply format of the model's family, or a TOML file with a fine-tune's own;
    docs/protocols.md describes both. With --init on the command line: that of the checkpoint."""
    max_turns: int = 6
    """Turn limit of an episode."""

    prompts_per_step: int = 8
    """Samples per step."""
    group_size: int = 8
    """Rollouts per sample; a group's rewards are compared with each other."""
    steps: Changeable[int] = 80
    """Training steps. A run can be continued to more of them, without --decay."""
    updates_per_batch: int = 1
    """Passes over the rollouts of a step; clipping takes effect from the second update on."""
    minibatches: int = 1
    """Optimiser updates per pass, each on an equal part of the step's samples."""
    dynamic_sampling: int = 0
    """Maximum extra rounds of sampling in a step, each of which replaces the groups with equal
    rewards, which have no gradient, by groups of further samples (DAPO). Local engine only."""
    micro_batch: Changeable[int] = 64
    """Maximum rollouts per forward and backward pass of an update; a smaller value needs less
    memory and leaves the gradient unchanged."""
    micro_batch_tokens: Changeable[int | None] = None
    """Maximum tokens per forward and backward pass of an update, in the vision tower as well. A
    longer rollout or a larger picture has its own pass. Default: what fits --gpu-memory; 32768 on
    the CPU. Local engine only."""
    gradient_checkpointing: Changeable[bool | None] = None
    """Keep one activation per layer and compute the others again in the backward pass: a third
    more computation for a fraction of the memory. Default: on a GPU. Local engine only."""
    gpu_memory: Changeable[float | None] = None
    """Memory of the GPU in GiB, which the defaults of the update and --dry-run are made for.
    Default: that of the GPU. Local engine only."""
    max_rollout_tokens: int = 8192
    """Token limit of a rollout; longer ones are counted as `overlong` and not trained on."""

    unanswered: Literal["penalise", "mask"] = "penalise"
    """Episodes that end without an answer, at the turn limit. penalise: trained on, with the
    penalty of --reward.format; mask: not trained on, so that long episodes are not discouraged."""

    learning_rate: float = 1e-6
    """AdamW learning rate."""
    warmup: int = 0
    """Steps of linear learning-rate warm-up."""
    decay: bool = False
    """Linear learning-rate decay after the warm-up, to 0 after the last step.
    Local engine only."""
    optimizer: Optimizer = "adamw"
    """Optimiser. adamw-8bit keeps its two moments in 8 bits and needs the package bitsandbytes and
    a GPU. Local engine only."""
    weight_decay: float = 0.0
    """AdamW weight decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW betas: decay of the means of gradients and of their squares."""
    clip: float = 0.2
    """Clip range of the policy ratio: [1 - clip, 1 + clip]."""
    max_grad_norm: float = 1.0
    """Gradient norm above which gradients are rescaled to it."""
    aggregation: Aggregation = "token-mean"
    """Loss average. token-mean: over all tokens of a step; sequence-mean: over its rollouts."""
    advantage_scale: AdvantageScale = "deviation"
    """Scale of advantages. deviation: divided by the deviation of the group's rewards; none: not
    divided, so that groups weigh as much as their rewards differ."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """Weights of the reward terms."""
    judge: NotAnOption[str] = ""
    """Model that decides free answers which no rule matches; empty: rules alone."""

    sampler: Sampler = "transformers"
    """Engine that samples the rollouts. vllm: vLLM in this process, which gets the weights after
    each update. Local engine only."""
    vllm: Changeable[Group[SamplerLimits]] = field(default_factory=SamplerLimits)
    """Memory and further arguments of vLLM, with --sampler vllm."""
    temperature: float = 1.0
    """Temperature of sampling and of the trained log-probabilities."""
    max_new_tokens: int = 512
    """Token limit of a reply."""
    sample_batch: Changeable[int] = 64
    """Rollouts per sampling batch. Another value draws other random numbers."""
    share: Changeable[bool] = True
    """Compute pictures and prompts that rollouts share once; False computes them per rollout, with
    the same result."""

    seed: int = 0
    """Seed of sample order and sampling."""
    lora: Annotated[
        LoraConfig | None, word_option(_read_lora, _lora_words, metavar="NAME=VALUE")
    ] = None
    """Train low-rank adapters only, with these settings or defaults: rank=16 alpha=32
    targets=q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj vision=no. Default: all weights.
    vision=yes: local engine only."""
    freeze_vision: bool = False
    """Freeze the vision tower."""
    threads: Changeable[int] = 0
    """CPU threads; 0: torch's default."""

    save_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of saved weights. auto: that of --init. Trained weights are kept in float32 beside
    them to resume from. Local engine only."""
    save_every: Changeable[int] = 10
    """Steps between checkpoints; the last step always has one."""
    keep: Changeable[int] = 2
    """Number of checkpoints to keep, besides the best one."""
    validate_every: int = 10
    """Steps between validations."""
    validation_size: int = 128
    """Number of validation samples, from the start of the folder."""
    log_episodes: Changeable[int] = 4
    """Episodes per step written to episodes.jsonl."""

    def __post_init__(self) -> None:
        Transformers.__post_init__(self)
        _at_least(
            self,
            1,
            "fixed_budget",
            "original_budget",
            "max_turns",
            "prompts_per_step",
            "steps",
            "updates_per_batch",
            "minibatches",
        )
        _at_least(
            self,
            1,
            "micro_batch",
            "max_rollout_tokens",
            "max_new_tokens",
            "sample_batch",
            "save_every",
            "keep",
            "validate_every",
        )
        _at_least(self, 0, "warmup", "weight_decay", "threads", "log_episodes", "learning_rate")
        _at_least(self, 0, "dynamic_sampling", "seed")
        _at_least(self, 1, "validation_size")
        _at_least(self, 2, "group_size")
        for name in ("micro_batch_tokens", "gpu_memory"):
            if getattr(self, name) is not None:
                _at_least(self, 1, name)
        for name in ("temperature", "clip", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"`{name}` must be above 0, got {getattr(self, name)}")
        for name, known in (
            ("first_view", ("selected", "random", "original", "fixed")),
            ("aggregation", ("token-mean", "sequence-mean")),
            ("unanswered", ("penalise", "mask")),
            ("advantage_scale", ("deviation", "none")),
            ("save_dtype", DTYPES),
            ("sampler", get_args(Sampler)),
            ("optimizer", get_args(Optimizer)),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"`{name}` must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        if self.prompts_per_step % self.minibatches:
            raise ConfigError(
                f"`minibatches` must divide `prompts_per_step`, which is {self.prompts_per_step}; "
                f"got {self.minibatches}"
            )
        if self.sampler != "vllm" and self.vllm != SamplerLimits():
            raise ConfigError(
                "`gpu_share`, `max_model_len` and `engine_options` are vLLM's; use them with "
                "`sampler` vllm"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"`betas` must lie in [0, 1), got {self.betas}")
        if self.crop.factor != self.chat.factor:
            raise ConfigError(
                f"`crop.factor` is {self.crop.factor}, but a visual token of {self.protocol} "
                f"is {self.chat.factor} pixels wide; use {self.chat.factor}"
            )
        if not self.selects:
            check_budget(self.first_budget(0), self.chat.factor, f"`{self.first_view}_budget`")

    def masks(self, episode: Episode) -> bool:
        """Whether an episode is not trained on, however long it is."""
        return self.unanswered == "mask" and episode.answer is None

    @property
    def chat(self) -> ChatProtocol:
        """The protocol."""
        return protocol_named(self.protocol)

    def first_budget(self, selected: int) -> int:
        """First-view budget of a sample whose selected budget is `selected`."""
        fixed = {"original": self.original_budget, "fixed": self.fixed_budget}
        return fixed.get(self.first_view, selected)

    @property
    def selects(self) -> bool:
        """Whether first views have the budgets that selection gave the samples."""
        return self.first_view in ("selected", "random")


def _at_least(config: TrainConfig, least: int, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= least:
            raise ConfigError(f"`{name}` must be at least {least}, got {getattr(config, name)}")
