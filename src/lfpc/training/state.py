"""Checkpoints to resume from: weights as a Hugging Face folder, the optimiser beside it.

    checkpoints/step-000010/      weights, tokenizer, picture processor, settings: loads anywhere
    checkpoints/step-000010.pt    optimiser, and adapters if the run trains them
    checkpoints/best/             the weights with the best validation so far
    init/                         see `resume`

Random numbers of a step depend on (seed, step) only, so no random state is saved.
"""

import copy
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from lfpc.errors import CheckpointError, ConfigError, DiskError, RunError
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.settings import CheckpointSettings
from lfpc.samples import Sample
from lfpc.storage.files import atomic_file, remove_drafts
from lfpc.training.config import LoraConfig, TrainConfig
from lfpc.training.resume import init_files

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
    whole = step and config.lora is None
    model, tokenizer = load_checkpoint(
        checkpoint_folder(config.out, step) if whole else config.init, device=device
    )
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
    settings = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(settings, model)
        except ValueError as error:
            raise ConfigError(f"`lora.targets`: {error}") from error


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
    remove_drafts(folder.parent)
    save_weights(model, tokenizer, folder, config, settings)
    try:
        with atomic_file(file, "wb") as out:
            torch.save(
                {"step": step, "optimizer": optimizer.state_dict(), "adapters": adapters(model)},
                out,
            )
    except (DiskError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise CheckpointError(f"{file}: cannot be written ({error.__cause__ or error})") from error
    for old in saved_steps(config.out)[: -config.keep]:
        checkpoint_folder(config.out, old).with_suffix(".pt").unlink()
        shutil.rmtree(checkpoint_folder(config.out, old))
    return folder


def save_weights(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    config: TrainConfig,
    settings: CheckpointSettings,
) -> Path:
    """Write the weights as a plain checkpoint, with adapters merged into a copy of the weights."""
    return save_checkpoint(
        _merged(model) if config.lora is not None else model,
        tokenizer,
        folder,
        source=init_files(config.out),
        settings=settings,
    )


def load_state(
    model: Any, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int
) -> None:
    """Restore optimiser and adapters of `step`."""
    file = checkpoint_folder(config.out, step).with_suffix(".pt")
    try:
        state = torch.load(file, map_location=model.device, weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
    except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{file}: cannot be read ({error}); delete it to resume from the checkpoint before"
        ) from error
    with torch.no_grad():
        for name, weight in adapters(model).items():
            weight.copy_(state["adapters"][name])


def _merged(model: Any) -> Any:
    from peft.tuners.tuners_utils import BaseTunerLayer

    merged = copy.deepcopy(model)
    for name, module in list(merged.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=False)
            parent = merged.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    return merged
