"""Memory and time of a run on one device by formula, and settings of the update that fit.

P: trained parameters, F: frozen ones, b: bytes of a computed number (2 in bfloat16, else 4), h, i,
k, L: width, inner width, key width and layers of the language model, v, w, D: width, inner width
and blocks of the tower.

    weights, gradients, optimiser   4 P + b F; 4 P; 8 P (2 P with adamw-8bit)
    copies in bfloat16              2 P
    a token of the language model, per layer:
        float32    36 h + 16 i  and 8 (h + k) per token attended to
        bfloat16   26 h +  8 i  and 4 (h + k)
        with checkpointing 4 h + 2 b k per layer, and one layer as above
    a patch of the tower, per block: 48 v + 16 w in float32, 36 v + 8 w in bfloat16;
        with checkpointing 4 v, and one block as above
    logits                          16 bytes (12 in bfloat16) per logit of a piece, and its gradient
    pictures                        8 h per visual token of the step: features and their gradient

Allocators add to this, so nine tenths of a GPU count as all of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from lfpc.errors import ConfigError
from lfpc.policies.qwen.sampling import LOGIT_ELEMENTS
from lfpc.training.config import MICRO_BATCH_TOKENS, TrainConfig
from lfpc.training.verl.clusters import Cluster
from lfpc.training.verl.estimate import (
    GIB,
    USABLE,
    Load,
    Preview,
    play_seconds,
    typical_load,
    update_seconds,
)
from lfpc.training.verl.shape import ModelShape, trained_and_frozen

PATCHES = 4
"""Patches of a visual token."""
GPU_GIB = 80.0
"""Memory that a dry run without a GPU assumes."""
LAUNCH_S = 6e-4
"""Assumed seconds to start the kernels of one layer, which bound sampling token by token."""
SMALLEST = 1024
"""Smallest default micro-batch, in tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Sizes of the largest forward and backward pass of an update, in tokens."""

    prompts: int
    """Tokens of distinct first prompts."""
    suffixes: int
    """Tokens of all rollouts after their first prompt."""
    attended: int
    """Tokens that the suffixes attend to: the whole rollouts."""
    written: int
    """Tokens that the policy wrote."""
    pictures: int
    """Visual tokens of one pass of a trained tower."""
    kept: bool
    """Whether that is the only pass, whose activations stay until the end of the update."""
    step_pictures: int
    """Distinct visual tokens of the step."""


def constant_bytes(
    shape: ModelShape, config: TrainConfig, *, half: bool, updating: bool = True
) -> int:
    """Bytes of weights, gradients and optimiser; while nothing is updated, without gradients.
    `half`: the run computes in bfloat16.
    """
    trained, frozen = trained_and_frozen(shape, config)
    moments = 2 if config.optimizer == "adamw-8bit" else 8
    gradients = 4 + 2 * half if updating else 0
    return trained * (4 + gradients + moments) + frozen * (2 if half else 4)


def sampler_share(shape: ModelShape, config: TrainConfig, gib: float, *, half: bool) -> float:
    """Share of a GPU of `gib` that vLLM takes: --gpu-share, else what weights and optimiser leave.

    Raises:
        ConfigError: that is less than its copy of the weights.
    """
    weights = shape.parameters * (2 if half else 4) / GIB
    idle = constant_bytes(shape, config, half=half, updating=False) / GIB
    share = config.vllm.gpu_share or max(0.0, int(100 * (USABLE - idle / gib)) / 100)
    if share * gib <= weights:
        raise ConfigError(
            f"`sampler` vllm gets {share * gib:.1f} GiB, but its copy of the weights needs "
            f"{weights:.1f}; use {'' if config.lora else '--lora, '}a larger GPU or `sampler` "
            f"transformers"
        )
    return share


def pass_bytes(
    shape: ModelShape, config: TrainConfig, size: Pass, *, half: bool, checkpointing: bool
) -> int:
    """Bytes of activations, logits and pictures at the peak of an update."""
    h, i, k = shape.hidden, shape.intermediate, shape.kv_width
    b = 2 if half else 4
    computed = size.prompts + size.suffixes
    attended = size.prompts + size.attended
    inside = (26 * h + 8 * i) if half else (36 * h + 16 * i)
    repeated = h if shape.heads != shape.kv_heads else 0
    layer = computed * inside + attended * 2 * b * (repeated + k)
    logits = min(size.written * shape.vocabulary, LOGIT_ELEMENTS) * (14 if half else 16)
    if checkpointing:
        kept = shape.layers * (computed * 4 * h + attended * 2 * b * k)
        language = kept + max(layer, logits)
    else:
        language = shape.layers * layer + logits
    prompts = size.prompts * shape.layers * 4 * k * 4  # keys and values with their gradients
    v, w = shape.vision_hidden, shape.vision_intermediate
    patches = PATCHES * size.pictures
    block = patches * ((36 * v + 8 * w) if half else (48 * v + 16 * w))
    tower = tower_kept = 0
    if tower_is_trained(config):
        tower_kept = shape.vision_depth * (patches * 4 * v if checkpointing else block)
        tower = tower_kept + checkpointing * block * 3 // 2  # with the gradients of its inside
    language += prompts
    together = max(language + tower_kept, tower) if size.kept else max(language, tower)
    return together + 8 * h * size.step_pictures


def tower_is_trained(config: TrainConfig) -> bool:
    """Whether the run trains weights of the vision tower."""
    return config.lora.vision if config.lora is not None else not config.freeze_vision


def typical_pass(config: TrainConfig, load: Load, tokens: int) -> Pass:
    """The largest pass of a step of rollouts of size `load`, in micro-batches of `tokens`."""
    rollouts = config.prompts_per_step * config.group_size
    rows = max(1, min(tokens // load.tokens, config.micro_batch, rollouts))
    prompt = load.first_view + load.text // 2
    first = prompt * (ceil(rows / config.group_size) if config.share else rows)
    pictures = config.prompts_per_step * load.first_view + rollouts * load.crops * load.crop
    return Pass(
        prompts=first,
        suffixes=rows * (load.tokens - prompt),
        attended=rows * load.tokens,
        written=rows * load.written,
        pictures=min(pictures, max(tokens, load.first_view, load.crop)),
        kept=pictures <= tokens,
        step_pictures=pictures,
    )


def update_gib(
    shape: ModelShape, config: TrainConfig, tokens: int, *, half: bool, checkpointing: bool
) -> float:
    """GiB at the peak of an update of typical rollouts in micro-batches of `tokens`."""
    size = typical_pass(config, typical_load(config), tokens)
    found = constant_bytes(shape, config, half=half)
    found += pass_bytes(shape, config, size, half=half, checkpointing=checkpointing)
    return found / GIB


def fitted(config: TrainConfig, shape: ModelShape, gib: float, *, half: bool) -> TrainConfig:
    """`config` with the settings of the update that are not given: the largest micro-batch that
    fits into `gib`, with gradient checkpointing.
    """
    checkpointing = config.gradient_checkpointing is not False
    tokens = config.micro_batch_tokens or MICRO_BATCH_TOKENS
    while config.micro_batch_tokens is None and tokens > SMALLEST:
        if update_gib(shape, config, tokens, half=half, checkpointing=checkpointing) <= (
            USABLE * gib
        ):
            break
        tokens //= 2
    return replace(config, micro_batch_tokens=tokens, gradient_checkpointing=checkpointing)


def sampling_gib(shape: ModelShape, config: TrainConfig, load: Load, *, half: bool) -> float:
    """GiB in sampling besides the weights: keys and values of a batch, expanded once from their
    prompts, and one layer's inside of it.
    """
    b = 2 if half else 4
    rows = min(config.sample_batch, config.prompts_per_step * config.group_size)
    tokens = min(config.batch_tokens, rows * (load.tokens + config.max_new_tokens))
    per_token = 2 * shape.layers * 2 * b * shape.kv_width + b * (
        3 * shape.intermediate + 8 * shape.hidden
    )
    return tokens * per_token / GIB


def advice(config: TrainConfig, *, half: bool) -> Iterator[str]:
    """Options that lower the memory of an update, those that help most first."""
    if config.lora is None:
        yield "--lora"
    if not half:
        yield "--dtype bfloat16"
    if config.gradient_checkpointing is False:
        yield "--gradient-checkpointing True"
    if config.lora is None and not config.freeze_vision:
        yield "--freeze-vision"
    if config.lora is None and config.optimizer == "adamw":
        yield "--optimizer adamw-8bit"
    yield "smaller budgets and --crop.max-tokens"


def report(
    config: TrainConfig, shape: ModelShape, gib: float, *, half: bool, cluster: Cluster
) -> Preview:
    """The estimate of a run.

    Args:
        config: the run.
        shape: of its model.
        gib: memory of the device.
        half: whether it computes in bfloat16.
        cluster: its gpu_tflops and gpu_tbps are those of the device.
    """
    config = fitted(config, shape, gib, half=half)
    tokens = config.micro_batch_tokens or MICRO_BATCH_TOKENS
    checkpointing = bool(config.gradient_checkpointing)
    load = typical_load(config)
    one = replace(cluster, nodes=1, gpus_per_node=1, tensor_parallel=1, checkpointing=checkpointing)
    constant = constant_bytes(shape, config, half=half) / GIB
    total = update_gib(shape, config, tokens, half=half, checkpointing=checkpointing)
    sampling = f"{sampling_gib(shape, config, load, half=half):7.1f} GiB besides the weights"
    if config.sampler == "vllm":
        share = sampler_share(shape, config, gib, half=half)
        sampling = f"{share * gib:7.1f} GiB for vLLM (--gpu-share {share:.2f})"
        one = replace(one, gpu_gib=gib, sampling_share=min(share, 0.99))
    rollouts = config.prompts_per_step * config.group_size
    batches = ceil(rollouts / config.sample_batch)
    play = play_seconds(shape, load, config, one)
    if config.sampler == "transformers":
        play += batches * load.written * shape.layers * LAUNCH_S
    update = update_seconds(shape, load, config, one)
    kind = f"LoRA, rank {config.lora.rank}" if config.lora else "all weights"
    lines = [
        f"estimate for {shape.parameters / 1e9:.2g} billion parameters ({kind}) on one device of "
        f"{gib:.3g} GiB",
        f"  assumed rollout: {load.tokens} tokens: first view {load.first_view}, {load.crops} crop "
        f"of {load.crop}, text {load.text}, written {load.written}",
        f"  settings    --micro-batch-tokens {tokens} --gradient-checkpointing {checkpointing}",
        f"  weights     {constant:7.1f} GiB with gradients and optimiser",
        f"  update      {total:7.1f} GiB at most, weights included",
        f"  sampling    {sampling}",
        f"  time        {play / 60:7.1f} min play + {update / 60:.1f} min update per step, "
        f"{(play + update) * config.steps / 3600:.1f} h per run on "
        f"{cluster.gpu_tflops:g} TFLOP/s and {cluster.gpu_tbps:g} TB/s",
    ]
    fits = total <= USABLE * gib
    lines.append(
        "  fits" if fits else f"  does not fit: use {', '.join(advice(config, half=half))}"
    )
    return Preview("\n".join(lines), fits=fits)
