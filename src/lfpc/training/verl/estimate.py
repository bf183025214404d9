"""Estimates of a run by formula: memory of GPUs and machines, time, disk. P: parameters, of which A
are trained (adapters come on top) and F are not; N: GPUs, T: tokens of a micro-batch.

    training, per GPU     (16 A + 4 F) / N         float32 weights, gradients, two moments of Adam
                        + 2 (E + 2 L)              bfloat16 of gathered parts: embeddings E, two
                                                   layers L
                        + T (2 h l + 16 h + 6 i)   one input per layer (kept), one layer's inside
                                                   (computed again), bfloat16
                        + 10 T V                   logits of V words: bfloat16, float32, gradient
    sampling, per GPU     2 P / tensor_parallel    bfloat16 weights; the rest of the share
                                                   holds keys and values
    machine               (12 A + 4 F) / nodes     offloaded weights and moments
                        + 2 P per copy of the sampling model, with adapters: vLLM keeps its weights
                          there while it sleeps; else it gets them anew
                        + pixels of a step / nodes, 2,352 bytes per visual token, twice (in the
                          queue, and on the way to a rank)
                        + 2 GiB per worker         decoded pictures and first views

    time of a step        play:   2 P tokens read / (0.4 peak)
                                  + tokens written * (2 P / copies in memory) / bandwidth
                          update: 2 P (old log-probabilities) + 4 P + 2 A (and 2 P again for
                                  activations), times tokens / (0.35 peak)
    checkpoint            16 A + 8 F               whole weights, verl's weights, two moments;
                                                   16 A with adapters

Allocators, fragmentation and stragglers add to this, so nine tenths of a GPU count as all of it.
The formulas were not checked on a GPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lfpc.errors import CheckpointError
from lfpc.policies.bases import weights_folder
from lfpc.training.config import TrainConfig
from lfpc.training.verl.clusters import Cluster
from lfpc.training.verl.shape import (
    SHAPES,
    ModelShape,
    shape_of_checkpoint,
    trained_and_frozen,
)

GIB = 2**30
PIXEL_BYTES = 2352
"""Bytes of one visual token on its way to training."""
USABLE = 0.9
READING = 0.4
UPDATING = 0.35
"""Shares of a GPU's peak speed in prompt processing and in training."""
AT_ONCE = 256
"""Maximum concurrent rollouts of one copy of the sampling model, if their keys and values fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Assumed size of a rollout, in tokens."""

    first_view: int
    crops: int
    crop: int
    text: int
    """Tokens of system message, question and observations."""
    written: int
    """Tokens of all replies."""

    @property
    def visual(self) -> int:
        """Visual tokens of a rollout."""
        return self.first_view + self.crops * self.crop

    @property
    def tokens(self) -> int:
        """Tokens of a rollout."""
        return self.visual + self.text + self.written


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Memory, time and disk of a run."""

    shape: ModelShape
    trained: int
    """Trained parameters."""
    load: Load
    training_gib: float
    """GiB per GPU in training."""
    sampling_gib: float
    """GiB per GPU in sampling, for weights and one rollout."""
    at_once: int
    """Concurrent rollouts per copy of the sampling model, by memory of keys and values."""
    host_gib: float
    """GiB per machine."""
    play_s: float
    update_s: float
    """Seconds of sampling and of the update in a step."""
    hours: float
    """Hours of the whole run."""
    checkpoint_gib: float
    """GiB of disk per checkpoint: the weights, and verl's own checkpoint."""
    advice: tuple[str, ...]
    """Options to change if the run does not fit; empty: it fits."""


def typical_load(config: TrainConfig) -> Load:
    """The typical load: one crop, two replies of 150 tokens, and a first view of 1,024 tokens if
    budgets are selected.
    """
    written = min(300, 2 * config.max_new_tokens)
    return Load(
        first_view=config.first_budget(1024),
        crops=1,
        crop=config.crop.max_tokens,
        text=256,
        written=written,
    )


def model_folder(config: TrainConfig) -> Path | None:
    """Folder with the configuration of the model of `config.init`; None: not on this machine."""
    try:
        folder = weights_folder(config.init)
    except CheckpointError:  # a hub id that is not in the cache, or adapters without their base
        return None
    return folder if (folder / "config.json").is_file() else None


def shape_of_run(config: TrainConfig, cluster: Cluster) -> ModelShape:
    """Shape of the checkpoint `config.init`, or of `cluster.model` without it."""
    folder = model_folder(config)
    return SHAPES[cluster.model] if folder is None else shape_of_checkpoint(folder)


def assumption(config: TrainConfig, cluster: Cluster) -> str:
    """A line that names the model which stands in for a missing checkpoint; empty: it is there."""
    if model_folder(config) is not None:
        return ""
    return (
        f"assumed model: Qwen2.5-VL {cluster.model} (--cluster.model), because there is no "
        f"checkpoint at --init {config.init}\n"
    )


def training_bytes(shape: ModelShape, config: TrainConfig, cluster: Cluster) -> float:
    """Bytes per GPU in training."""
    tokens = cluster.micro_batch_tokens(config)
    h = shape.hidden
    layers = shape.layers
    inside = 16 * h + 6 * shape.intermediate
    activations = tokens * ((2 * h * layers + inside) if cluster.checkpointing else layers * inside)
    gathered = 2 * (shape.embedding_parameters + 2 * shape.layer_parameters)
    trained, frozen = trained_and_frozen(shape, config)
    return (
        (16 * trained + 4 * frozen) / cluster.gpus
        + gathered
        + activations
        + 10 * tokens * shape.vocabulary
    )


def host_bytes(shape: ModelShape, load: Load, config: TrainConfig, cluster: Cluster) -> float:
    """Bytes per machine."""
    trained, frozen = trained_and_frozen(shape, config)
    offloaded = (12 * trained + 4 * frozen) / cluster.nodes if cluster.offload else 0
    pixels = (
        2 * config.prompts_per_step * config.group_size * load.visual * PIXEL_BYTES / cluster.nodes
    )
    copies = cluster.gpus_per_node / cluster.tensor_parallel
    sleeping = 2 * shape.parameters * copies if config.lora is not None else 0
    return offloaded + sleeping + pixels + 2 * GIB * cluster.workers / cluster.nodes


def rollouts_at_once(shape: ModelShape, load: Load, cluster: Cluster) -> int:
    """Concurrent rollouts per copy of the sampling model."""
    memory = (
        cluster.sampling_share * cluster.gpu_gib * GIB * cluster.tensor_parallel
        - 2 * shape.parameters
    )
    return max(0, min(AT_ONCE, int(memory / (load.tokens * shape.cache_bytes))))


def play_seconds(shape: ModelShape, load: Load, config: TrainConfig, cluster: Cluster) -> float:
    """Seconds of one step's sampling: prompt processing, then one pass over the weights per token
    of a batch.
    """
    rollouts = config.prompts_per_step * config.group_size
    copies = cluster.gpus / cluster.tensor_parallel
    flops = cluster.gpus * cluster.gpu_tflops * 1e12
    read = 2 * shape.parameters * rollouts * load.tokens / (READING * flops)
    passes = (
        load.written
        * rollouts
        / copies
        / max(1, min(rollouts_at_once(shape, load, cluster), rollouts / copies))
    )
    return read + passes * 2 * shape.parameters / (
        cluster.tensor_parallel * cluster.gpu_tbps * 1e12
    )


def update_seconds(shape: ModelShape, load: Load, config: TrainConfig, cluster: Cluster) -> float:
    """Seconds of one step's log-probabilities and update."""
    tokens = config.prompts_per_step * config.group_size * load.tokens
    trained, _ = trained_and_frozen(shape, config)
    once = (6 if cluster.checkpointing else 4) * shape.parameters + 2 * trained
    per_token = 2 * shape.parameters + once * config.updates_per_batch
    return per_token * tokens / (UPDATING * cluster.gpus * cluster.gpu_tflops * 1e12)


def checkpoint_bytes(shape: ModelShape, config: TrainConfig) -> int:
    """Bytes of disk of one checkpoint."""
    trained, frozen = trained_and_frozen(shape, config)
    return 16 * trained + (8 * frozen if config.lora is None else 0)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a dry run finds."""

    text: str
    fits: bool
    """Whether the estimated memory is there."""


def estimate(config: TrainConfig, cluster: Cluster, load: Load | None = None) -> Estimate:
    """The estimate of a run, with advice if it does not fit."""
    shape = shape_of_run(config, cluster)
    load = load or typical_load(config)
    play = play_seconds(shape, load, config, cluster)
    update = update_seconds(shape, load, config, cluster)
    found = {
        "training_gib": training_bytes(shape, config, cluster) / GIB,
        "sampling_gib": (
            2 * shape.parameters / cluster.tensor_parallel + load.tokens * shape.cache_bytes
        )
        / GIB,
        "host_gib": host_bytes(shape, load, config, cluster) / GIB,
    }
    return Estimate(
        shape=shape,
        trained=trained_and_frozen(shape, config)[0],
        load=load,
        at_once=rollouts_at_once(shape, load, cluster),
        play_s=play,
        update_s=update,
        hours=(play + update) * config.steps / 3600,
        checkpoint_gib=checkpoint_bytes(shape, config) / GIB,
        advice=tuple(_advice(config, cluster, **found)),
        **found,
    )


def _advice(
    config: TrainConfig,
    cluster: Cluster,
    *,
    training_gib: float,
    sampling_gib: float,
    host_gib: float,
) -> Iterator[str]:
    if training_gib > USABLE * cluster.gpu_gib:
        if cluster.micro_batch_tokens(config) > config.max_rollout_tokens:
            yield "training: lower --cluster.tokens-per-gpu"
        if not cluster.checkpointing:
            yield "training: turn --cluster.checkpointing on"
        if config.lora is None:
            yield f"training: {'' if config.freeze_vision else '--freeze-vision or '}--lora"
        yield (
            f"training: lower --max-rollout-tokens (now {config.max_rollout_tokens}), "
            f"--crop.max-tokens and the budgets; or more GPUs, or a smaller model"
        )
    if sampling_gib > cluster.sampling_share * cluster.gpu_gib:
        yield "sampling: raise --cluster.sampling-share or --cluster.tensor-parallel"
    if host_gib > USABLE * cluster.host_gib:
        yield (
            "machine: lower --prompts-per-step, --group-size or --crop.max-tokens; or "
            "--cluster.no-offload where the GPUs have room"
        )


def report(found: Estimate, cluster: Cluster) -> str:
    """An estimate as text."""
    load = found.load
    part = "" if found.trained == found.shape.parameters else f" ({found.trained:,} trained)"
    lines = [
        f"estimate for {found.shape.parameters / 1e9:.1f} billion parameters{part} on "
        f"{cluster.nodes} x {cluster.gpus_per_node} GPUs "
        f"of {cluster.gpu_gib:g} GiB",
        f"  assumed rollout: {load.tokens} tokens: first view {load.first_view}, "
        f"{load.crops} crop of {load.crop}, "
        f"text {load.text}, written {load.written}",
        f"  training    {found.training_gib:7.1f} GiB per GPU",
        f"  sampling    {found.sampling_gib:7.1f} GiB per GPU at least; {found.at_once} "
        f"concurrent rollouts",
        f"  machine     {found.host_gib:7.1f} GiB of {cluster.host_gib:g}",
        f"  checkpoint  {found.checkpoint_gib:7.1f} GiB of disk each",
        f"  time        {found.play_s / 60:7.1f} min play + {found.update_s / 60:.1f} min "
        f"update per step, {found.hours:.1f} h per run",
    ]
    verdict = [f"  does not fit: {advice}" for advice in found.advice] or ["  fits"]
    return "\n".join(lines + verdict)
