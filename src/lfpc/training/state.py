"""Checkpoints to resume from: weights as a Hugging Face folder, the optimiser beside it.

    checkpoints/step-000010/      weights, tokenizer, picture processor, settings: loads anywhere
    checkpoints/step-000010.pt    optimiser, and adapters if the run trains them
    checkpoints/best/             the weights with the best validation so far
    init/                         see `resume`

Random numbers of a step depend on (seed, step) only, so no random state is saved.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

import torch
from transformers import PreTrainedTokenizerBase

from lfpc.errors import CheckpointError, ConfigError, DiskError, RunError, first_line
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.settings import CheckpointSettings
from lfpc.samples import Sample
from lfpc.storage.files import atomic_file, remove_drafts
from lfpc.training.config import LoraConfig, TrainConfig
from lfpc.training.resume import init_files

MERGED_DIFFERENCE = 1e-3
"""Largest difference of a logit after merging adapters, in standard deviations of the logits;
rounding alone gives about 1e-6."""
_STEP = re.compile(r"step-(\d{6})")


def checkpoint_folder(out: Path, step: int) -> Path:
    """Folder of the weights of `step`."""
    return out / "checkpoints" / f"step-{step:06d}"


def best_checkpoint(out: Path) -> Path:
    """Folder of the weights with the best validation."""
    return out / "checkpoints" / "best"


def step_folders(out: Path) -> list[int]:
    """Steps with saved weights, oldest first."""
    folders = (out / "checkpoints").glob("step-*")
    return sorted(
        int(match.group(1))
        for folder in folders
        if folder.is_dir() and (match := _STEP.fullmatch(folder.name))
    )


def saved_steps(out: Path) -> list[int]:
    """Steps that a run can resume from, oldest first."""
    return [
        step
        for step in step_folders(out)
        if checkpoint_folder(out, step).with_suffix(".pt").is_file()
    ]


def check_engine(out: Path, engine: Literal["local", "verl"]) -> None:
    """Check that `out` holds no run of the other engine, whose optimiser `engine` cannot read.

    Raises:
        RunError: it does.
    """
    other = {"local": "verl", "verl": "local"}[engine]
    if {"local": saved_steps(out), "verl": (out / "verl").is_dir()}[other]:
        raise RunError(
            f"{out} holds a run of the {other} engine; continue it with --engine {other}, "
            f"or name another folder"
        )


def load_model(
    config: TrainConfig, step: int, device: torch.device
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Model and tokenizer after `step` (0: of `config.init`); the trained weights require
    gradients.
    """
    if step and config.lora is None:
        with _resume_advice(config.out, step):
            model, tokenizer = load_checkpoint(checkpoint_folder(config.out, step), device=device)
    else:
        model, tokenizer = load_checkpoint(config.init, device=device)
    if config.lora is not None:
        add_adapters(model, config.lora, seed=config.seed)
    if config.freeze_vision:
        model.model.visual.requires_grad_(False)
    return model, tokenizer


def add_adapters(model: Any, lora: LoraConfig, *, seed: int) -> None:
    """Put low-rank adapters into `model`, in place; only they require gradients.

    Raises:
        ConfigError: peft is not installed, or no layer matches a target name.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError("`lora` needs the package peft: pip install 'lfpc[lora]'") from error
    _check_untied(model, lora)
    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(settings, model)
        except ValueError as error:
            raise ConfigError(f"`lora.targets`: {error}") from error


def _check_untied(model: Any, lora: LoraConfig) -> None:
    """Check that no adapter gets on a matrix that two layers share: merged into one of them, it
    would be in both or in none.

    Raises:
        ConfigError: one would.
    """
    if not model.config.tie_word_embeddings:
        return
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    for name, module in model.named_modules():
        if module in embeddings and name.rpartition(".")[2] in lora.targets:
            raise ConfigError(
                f"--lora.targets: {name} shares its weights with the other embedding of this "
                f"checkpoint (tie_word_embeddings); leave embed_tokens and lm_head out"
            )


def adapters(model: Any) -> dict[str, torch.Tensor]:
    """The weights of the adapters by name; empty without adapters."""
    return {name: weight for name, weight in model.named_parameters() if "lora_" in name}


def settings_of_run(config: TrainConfig, samples: Sequence[Sample]) -> CheckpointSettings:
    """The settings that the run's checkpoints carry (`lfpc.json`).

    Args:
        config: the run.
        samples: the training samples; the small budget of a run with selected budgets is the most
            frequent one, the smallest of ties.
    """
    small: dict[str, int | None] = {"original": None, "fixed": config.fixed_budget}
    if config.first_view == "selected":
        counts = Counter(sample.budget for sample in samples if sample.budget is not None)
        small["selected"] = max(sorted(counts), key=counts.__getitem__)
    return CheckpointSettings(
        protocol=config.protocol,
        crop=config.crop,
        max_turns=config.max_turns,
        max_new_tokens=config.max_new_tokens,
        first_view=config.first_view,
        small_budget=small[config.first_view],
        full_budget=config.original_budget,
    )


def save_state(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    step: int,
    settings: CheckpointSettings,
) -> Path:
    """Write a checkpoint to resume from, and delete the oldest ones. Returns its folder.

    Raises:
        CheckpointError: the disk refuses; earlier checkpoints are kept.
    """
    folder = checkpoint_folder(config.out, step)
    file = folder.with_suffix(".pt")
    save_weights(model, tokenizer, folder, config, settings)
    try:
        with atomic_file(file, "wb") as out:
            torch.save(
                {"step": step, "optimizer": optimizer.state_dict(), "adapters": adapters(model)},
                out,
            )
    except (DiskError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise CheckpointError(f"{file}: cannot be written ({error.__cause__ or error})") from error
    remove_leftovers(config.out, config.keep)
    return folder


def remove_leftovers(out: Path, keep: int) -> None:
    """Delete all but the last `keep` checkpoints to resume from, and what a killed run has left:
    drafts, weights without an optimiser, optimisers without weights.
    """
    remove_drafts(out / "checkpoints")
    kept = {checkpoint_folder(out, step) for step in saved_steps(out)[-keep:]}
    for file in (out / "checkpoints").glob("step-*.pt"):  # first: without it a folder is no state
        if file.with_suffix("") not in kept:
            file.unlink()
    for step in step_folders(out):
        if checkpoint_folder(out, step) not in kept:
            shutil.rmtree(checkpoint_folder(out, step))


def save_weights(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    config: TrainConfig,
    settings: CheckpointSettings,
) -> Path:
    """Write the weights as a plain checkpoint, with adapters merged into them.

    Raises:
        CheckpointError: the disk refuses, or the merged weights compute other logits than the
            adapters.
    """
    with merged(model) if config.lora is not None else nullcontext():
        return save_checkpoint(
            model, tokenizer, folder, source=init_files(config.out), settings=settings
        )


def load_state(
    model: Any, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int
) -> None:
    """Restore optimiser and adapters of `step`.

    Raises:
        CheckpointError: the file is damaged, or of other weights.
    """
    file = checkpoint_folder(config.out, step).with_suffix(".pt")
    with _resume_advice(config.out, step):
        try:
            if damaged := ZipFile(file).testzip():  # torch does not compare the checksums inside
                raise ValueError(f"{damaged} in it differs from its checksum")
            state = torch.load(file, map_location=model.device, weights_only=True)
            optimizer.load_state_dict(state["optimizer"])
            with torch.no_grad():
                for name, weight in adapters(model).items():
                    weight.copy_(state["adapters"][name])
        except Exception as error:  # each reader raises its own exception for a broken file
            raise CheckpointError(f"{file}: cannot be read ({first_line(error)})") from error


@contextmanager
def _resume_advice(out: Path, step: int) -> Iterator[None]:
    """Add to a CheckpointError about the checkpoint of `step` how to continue without it."""
    try:
        yield
    except CheckpointError as error:
        folder = checkpoint_folder(out, step)
        earlier = [one for one in saved_steps(out) if one < step]
        advice = (
            f"to resume from step {earlier[-1]}, move {folder} and {folder.name}.pt to another "
            f"folder"
            if earlier
            else f"{out} has no earlier checkpoint: start a new run with another --out, from these "
            f"weights if they load (--init {folder})"
        )
        raise CheckpointError(f"{error}; {advice}") from error


@contextmanager
def merged(model: Any) -> Iterator[None]:
    """Inside the block the adapters of `model` are merged into its layers, whose names are then
    those of a plain checkpoint. The former weights wait in main memory, so the device holds no
    second copy, and are the same bits afterwards.

    Raises:
        CheckpointError: the merged layers compute other logits.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: dict[str, Any] = {
        name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)
    }
    before = _logits(model)
    former: dict[str, torch.Tensor] = {}
    try:
        for name, layer in layers.items():
            base = layer.get_base_layer()
            former[name] = base.weight.detach().to("cpu", copy=True)
            with torch.no_grad():
                for adapter in layer.active_adapters:
                    base.weight.add_(layer.get_delta_weight(adapter))
            _put(model, name, base)
        difference = float((_logits(model) - before).abs().max() / before.std())
        if not difference < MERGED_DIFFERENCE:
            raise CheckpointError(
                f"the merged adapters compute other logits than training did (by {difference:.2g} "
                f"standard deviations); no checkpoint is written"
            )
        yield
    finally:
        for name, weight in former.items():
            with torch.no_grad():
                layers[name].get_base_layer().weight.copy_(weight)
            _put(model, name, layers[name])


def _put(model: Any, name: str, module: Any) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    """Logits of a short made-up conversation with a picture of 4 visual tokens."""
    config = model.config
    vision = config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    side = 2 * vision.spatial_merge_size
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 256, (8,), generator=generator).tolist()
    ids = [*words, config.vision_start_token_id, *[config.image_token_id] * 4]
    ids += [config.vision_end_token_id, *words]
    tokens = torch.tensor([ids], device=model.device)
    return model(
        input_ids=tokens,
        mm_token_type_ids=(tokens == config.image_token_id).int(),
        pixel_values=torch.randn(side * side, patch, generator=generator).to(model.device),
        image_grid_thw=torch.tensor([[1, side, side]], device=model.device),
    ).logits.float()
