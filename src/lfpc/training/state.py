"""Checkpoints to resume from: weights as a Hugging Face folder, the optimiser beside it.

    checkpoints/step-000010/      weights, tokenizer, picture processor, settings: loads anywhere;
                                  with --lora, adapters in place of the weights
    checkpoints/step-000010.pt    optimiser, and the trained weights where the folder rounds them
    checkpoints/best/             the weights with the best validation so far
    init/                         see `resume`

Random numbers of a step depend on (seed, step) only, so no random state is saved.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

import torch
from transformers import PreTrainedTokenizerBase

from lfpc.errors import CheckpointError, DiskError, RunError, first_line
from lfpc.policies.bases import check_whole
from lfpc.policies.devices import precision
from lfpc.policies.qwen.adapters import adapted_layers, adapters, add_adapters, save_adapters
from lfpc.policies.qwen.checkpoint import dtype_of, load_checkpoint, save_checkpoint
from lfpc.policies.settings import CheckpointSettings, local_folder
from lfpc.samples import Sample
from lfpc.storage.files import atomic_file, remove_drafts
from lfpc.training.config import TrainConfig
from lfpc.training.resume import described_init

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
    """Model and tokenizer after `step` (0: of `config.init`); the trained weights are float32 and
    require gradients, the others are in the run's precision.
    """
    if config.lora is not None:
        check_whole(config.init, "and `lora` would add to them")
    frozen = precision(config, device)
    if step and config.lora is None and not (rounds(config) and config.freeze_vision):
        with _resume_advice(config.out, step):
            model, tokenizer = load_checkpoint(checkpoint_folder(config.out, step), device=device)
    else:
        model, tokenizer = load_checkpoint(
            config.init, dtype=torch.float32 if config.lora is None else frozen, device=device
        )
    if config.lora is not None:
        layers = adapted_layers(model, config.lora.targets, vision=config.lora.vision)
        add_adapters(
            model, layers, rank=config.lora.rank, alpha=config.lora.alpha, seed=config.seed
        )
    if config.freeze_vision:
        for weight in model.model.visual.parameters():
            weight.requires_grad_(False)
            weight.data = weight.data.to(frozen)
    return model, tokenizer


def saved_dtype(config: TrainConfig) -> torch.dtype:
    """Precision of the saved weights: that of `config.init` with save_dtype="auto"."""
    if config.save_dtype == "auto":
        return dtype_of(described_init(config))
    return torch.bfloat16 if config.save_dtype == "bfloat16" else torch.float32


def rounds(config: TrainConfig) -> bool:
    """Whether saved weights are less precise than the trained ones."""
    return config.lora is None and saved_dtype(config) != torch.float32


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights that require gradients, by name."""
    return {name: w for name, w in model.named_parameters() if w.requires_grad}


def settings_of_run(config: TrainConfig, samples: Sequence[Sample]) -> CheckpointSettings:
    """The settings that the run's checkpoints carry (`lfpc.json`).

    Args:
        config: the run.
        samples: the training samples; the small budget of a run with selected budgets is the most
            frequent one, the smallest of ties.
    """
    small = config.fixed_budget if config.first_view == "fixed" else None
    if config.selects:
        counts = Counter(sample.budget for sample in samples if sample.budget is not None)
        small = max(sorted(counts), key=counts.__getitem__)
    return CheckpointSettings(
        protocol=config.protocol,
        crop=config.crop,
        max_turns=config.max_turns,
        max_new_tokens=config.max_new_tokens,
        first_view=config.first_view,
        small_budget=small,
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
                {
                    "step": step,
                    "optimizer": optimizer.state_dict(),
                    "adapters": adapters(model),
                    "weights": trained_weights(model) if rounds(config) else {},
                },
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
    """Write the weights as a plain checkpoint, or the adapters of a run with --lora.

    Raises:
        CheckpointError: the disk refuses.
    """
    lora = config.lora
    return save_checkpoint(
        model,
        tokenizer,
        folder,
        source=described_init(config),
        settings=settings,
        dtype=saved_dtype(config) if rounds(config) else None,
        write=lora
        and partial(
            save_adapters,
            adapters(model),
            base=local_folder(config.init),
            rank=lora.rank,
            alpha=lora.alpha,
        ),
    )


def load_state(
    model: Any, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int
) -> None:
    """Restore optimiser and trained weights of `step`.

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
                if rounds(config):
                    for name, weight in trained_weights(model).items():
                        weight.copy_(state["weights"][name])
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
