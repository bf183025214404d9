"""What one device does with models of published shapes and random weights: sampling, updates,
memory. `python -m bench gpu` takes at most nine minutes and writes gpu.json; parts for which no
time is left are listed there as not run.

A view has 1,024 visual tokens, and a rollout one crop of as many and two replies of 150 tokens.
"no sharing": prompts and pictures are computed for every rollout. `mfu` is the share of the card's
peak that model FLOPs take, see `bench.flops`.

Every part has its seconds at best beside its seconds: an update its model FLOPs at the speed of a
large matrix product on this device, sampling one read of all weights per token of a batch at the
speed of a large copy.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench.flops import mfu, update_flops
from bench.results import Result
from bench.shaped import random_rollouts, random_view, shaped_model
from lfpc.dialogue import Context
from lfpc.errors import LfpcError, first_line
from lfpc.mini.model import build_tokenizer, picture_processor
from lfpc.policies.backends import Placement, VllmEngine
from lfpc.policies.devices import device_gib, out_of_memory, placed, release_memory
from lfpc.policies.qwen.adapters import adapted_layers, add_adapters
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy
from lfpc.policies.vllm import VllmPolicy
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL
from lfpc.storage.files import write_json
from lfpc.training.config import MICRO_BATCH_TOKENS, LoraConfig, TrainConfig
from lfpc.training.memory import USABLE, fitted, update_gib
from lfpc.training.update import Learner
from lfpc.training.verl.shape import SHAPES, ModelShape, shape_of_checkpoint

LIMIT_S = 9 * 60
"""Seconds after which no further part is begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is measured."""

    shapes: dict[str, ModelShape]
    """Shapes by name; those of published models in place of --model."""
    view: int = 1024
    """Visual tokens of a view and of a crop."""
    questions: int = 2
    group: int = 8
    """Questions of an update, and rollouts of each."""
    written: int = 300
    """Tokens of a rollout's replies."""
    sampled: int = 64
    """Rollouts of a sampling batch."""
    limit_s: float = LIMIT_S
    matrix: int = 8192
    """Side of the matrices that measure the device."""


TINY = Work(
    shapes={
        "tiny": ModelShape(
            hidden=64,
            layers=2,
            heads=4,
            kv_heads=2,
            intermediate=96,
            vocabulary=1344,
            tied=True,
            vision_hidden=80,
            vision_depth=2,
            vision_intermediate=96,
        )
    },
    view=16,
    questions=2,
    group=2,
    written=8,
    sampled=4,
    matrix=256,
)
"""A few seconds on a CPU: whether the benchmark runs."""


def measure(out: Path, work: Work, *, model: Path | None = None, device: str = "auto") -> Result:
    """Run every part for which time is left, write `out`/gpu.json and return the figures.

    Args:
        out: folder of gpu.json.
        work: what is measured.
        model: checkpoint to measure in place of the shapes; None: random weights.
        device: torch device; auto: a GPU if there is one.
    """
    began = time.perf_counter()
    place, dtype = placed(Placement(device=device))
    shapes = {model.name: shape_of_checkpoint(model)} if model else work.shapes
    found: Result = {
        "device": _name(place),
        "gib": device_gib(place),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "view": work.view,
        "models": {},
    }
    for name, shape in shapes.items():
        parts: Result = {}
        found["models"][name] = parts
        for part, run in _parts(shape, work, model, place, dtype, out):
            if time.perf_counter() - began > work.limit_s:
                parts[part] = {"not_run": "no time left"}
            else:
                parts[part] = _tried(run, place)
            write_json(out / "gpu.json", found)
    found["seconds"] = time.perf_counter() - began
    write_json(out / "gpu.json", found)
    return found


def lines(found: Result) -> str:
    """The figures as text, a line per part."""
    rows = [f"{found['device']}, {found['dtype']}, views of {found['view']} visual tokens"]
    for name, parts in found["models"].items():
        for part, figures in parts.items():
            shown = ", ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in figures.items()
            )
            rows.append(f"  {name:6} {part:46} {shown}")
    return "\n".join(rows)


def _parts(
    shape: ModelShape,
    work: Work,
    model: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    out: Path,
) -> Iterator[tuple[str, Callable[[], Result]]]:
    """The parts of one model by name, the most useful ones first."""
    lora = LoraConfig()

    def sampling(*, share: bool) -> Callable[[], Result]:
        return lambda: _sampling(shape, work, model, device, dtype, share)

    def update(
        adapters: LoraConfig | None, *, checkpointing: bool, share: bool
    ) -> Callable[[], Result]:
        return lambda: _update(shape, work, model, device, dtype, adapters, checkpointing, share)

    for share, how in ((True, ""), (False, ", no sharing")):
        yield f"sampling{how}", sampling(share=share)
        for name, adapters in (("lora", lora), ("all weights", None)):
            yield (
                f"update, {name}, checkpointing{how}",
                update(adapters, checkpointing=True, share=share),
            )
            yield f"update, {name}{how}", update(adapters, checkpointing=False, share=share)
        if share:
            yield "sampling, vllm", lambda: _vllm(shape, work, model, device, dtype, out)


def _tried(run: Callable[[], Result], device: torch.device) -> Result:
    failed = ""
    try:
        return run()
    except LfpcError as error:
        failed = str(error)
    except (RuntimeError, MemoryError) as error:
        failed = "out of memory" if out_of_memory(error) else first_line(error)
    release_memory()
    return {"not_run": failed}


@contextmanager
def _watched(device: torch.device) -> Iterator[Result]:
    """Seconds of the block, and on a GPU its peak memory."""
    figures: Result = {}
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    yield figures
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        figures["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    figures["seconds"] = time.perf_counter() - began


def _model(
    shape: ModelShape, model: Path | None, device: torch.device, dtype: torch.dtype
) -> tuple[Any, Any]:
    if model is not None:
        return load_checkpoint(model, dtype=dtype, device=device)
    tokenizer = build_tokenizer()
    return shaped_model(shape, tokenizer, dtype=dtype, device=device), tokenizer


def _contexts(work: Work) -> list[Context]:
    """A group of rollouts per question."""
    views = [random_view(number, work.view) for number in range(max(1, work.sampled // 8))]
    return [
        Context("What is in the picture?", (), views[number % len(views)], (), key=str(number))
        for number in range(work.sampled)
    ]


def _sampling(
    shape: ModelShape,
    work: Work,
    model: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    share: bool,
) -> Result:
    """Tokens a second of our own engine."""
    loaded, tokenizer = _model(shape, model, device, dtype)
    rules = Sampling(temperature=1.0, max_new_tokens=work.written // 2)
    policy = TransformersPolicy(loaded, tokenizer, QWEN2_5_VL, sampling=rules, share=share)
    policy.reply(_contexts(work)[:2])  # warm
    with _watched(device) as figures:
        replies = policy.reply(_contexts(work))
    weight_bytes = shape.parameters * dtype.itemsize
    speeds = peak(device, dtype, work.matrix)
    return _rate(figures, [len(reply.token_ids) for reply in replies], weight_bytes, speeds)


def _vllm(
    shape: ModelShape,
    work: Work,
    model: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    out: Path,
) -> Result:
    """Tokens a second of vLLM in this process."""
    if find_spec("vllm") is None:
        return {"not_run": "vllm is not installed"}
    folder = model
    if folder is None:
        loaded, tokenizer = _model(shape, None, device, dtype)
        processor = picture_processor()
        folder = save_checkpoint(loaded, tokenizer, out / "shaped", processor=processor)
        del loaded
        release_memory()
    length = work.view + work.written + 1024
    rules = Sampling(temperature=1.0, max_new_tokens=work.written // 2)
    engine = VllmEngine(max_model_len=length, gpu_share=0.8)
    policy = VllmPolicy(folder, QWEN2_5_VL, engine=engine, sampling=rules)
    policy.reply(_contexts(work)[:2])  # warm
    with _watched(device) as figures:
        replies = policy.reply(_contexts(work))
    figures.pop("peak_gib", None)  # vLLM allocates in a process of its own
    weight_bytes = shape.parameters * dtype.itemsize
    speeds = peak(device, dtype, work.matrix)
    return _rate(figures, [len(reply.token_ids) for reply in replies], weight_bytes, speeds)


@dataclass(frozen=True, slots=True)
class Peak:
    """Speeds of a device."""

    flops: float
    """Operations a second of a matrix product."""
    bandwidth: float
    """Bytes a second that a copy reads and writes."""


@cache  # a device has one, and it takes longer than a small part
@torch.no_grad()
def peak(device: torch.device, dtype: torch.dtype, side: int) -> Peak:
    """Highest speeds of some products and copies of `side` x `side` matrices."""
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    other = torch.empty_like(matrix)

    def shortest(work: Callable[[], object]) -> float:
        found: list[float] = []
        for _ in range(5):
            with _watched(device) as figures:
                work()
            found.append(figures["seconds"])
        return min(found)

    product = shortest(lambda: torch.mm(matrix, matrix, out=other))
    copy = shortest(lambda: other.copy_(matrix))
    return Peak(2 * side**3 / product, 2 * matrix.numel() * matrix.element_size() / copy)


def _with_limit(figures: Result, at_best_s: float) -> Result:
    return {**figures, "at_best_s": at_best_s, "share": at_best_s / figures["seconds"]}


def _rate(figures: Result, counts: list[int], weight_bytes: float, speeds: Peak) -> Result:
    found = {**figures, "tokens": sum(counts), "tokens_s": sum(counts) / figures["seconds"]}
    return _with_limit(found, max(counts) * weight_bytes / speeds.bandwidth)


def _update(
    shape: ModelShape,
    work: Work,
    model: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    lora: LoraConfig | None,
    checkpointing: bool,
    share: bool,
) -> Result:
    """Seconds, MFU and peak memory of an update, and the estimate of that memory."""
    gib = device_gib(device)
    half = dtype == torch.bfloat16
    config = TrainConfig(
        lora=lora,
        prompts_per_step=work.questions,
        group_size=work.group,
        first_view="fixed",
        fixed_budget=work.view,
        gradient_checkpointing=checkpointing,
        share=share,
        crop=replace(TrainConfig().crop, max_tokens=work.view),
    )
    if gib is not None:
        config = fitted(config, shape, gib, half=half)
    tokens = config.micro_batch_tokens or MICRO_BATCH_TOKENS
    needed = update_gib(shape, config, tokens, half=half, checkpointing=checkpointing)
    estimated: Result = {"estimated_gib": needed, "micro_batch_tokens": tokens}
    if gib is not None and needed > USABLE * gib:
        return {"not_run": "does not fit by the estimate", **estimated}
    loaded, tokenizer = _model(shape, model, device, dtype if lora else torch.float32)
    if lora is not None:
        layers = adapted_layers(loaded, lora.targets, vision=lora.vision)
        add_adapters(loaded, layers, rank=lora.rank, alpha=lora.alpha, seed=0)
    policy = TransformersPolicy(loaded, tokenizer, QWEN2_5_VL, share=share)
    learner = Learner(policy, config)
    rollouts = random_rollouts(
        policy.encoder,
        questions=work.questions,
        group=work.group,
        view=work.view,
        crop=work.view,
        written=work.written,
    )
    advantages = [1.0, -1.0] * (len(rollouts) // 2)
    read = sum(len(rollout.encoded.ids) for rollout in rollouts)
    learner.update(rollouts, advantages, step=1)  # warm, and makes the optimiser's state
    with _watched(device) as figures:
        learner.update(rollouts, advantages, step=2)
    flops = update_flops(shape, rollouts, lora=lora, share=share)
    found = {
        **figures,
        "tokens": read,
        "tokens_s": read / figures["seconds"],
        "mfu": mfu(flops, figures["seconds"], _name(device)),
        **estimated,
    }
    return _with_limit(found, flops / peak(device, dtype, work.matrix).flops)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def published() -> Work:
    """The work of a GPU: models of 3B and 7B."""
    return Work(shapes={name: SHAPES[name] for name in ("3B", "7B")})
