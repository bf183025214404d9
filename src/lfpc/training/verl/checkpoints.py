"""verl's checkpoints as ours.

    verl/global_step_10/           verl's own checkpoint: weights and optimiser, a shard per rank
    verl/latest_checkpointed_iteration.txt
    checkpoints/step-000010/       the whole weights: loads anywhere, --init of Stage II; of a run
                                   with --lora the adapters
    checkpoints/best/              the weights with the best validation so far

The run folder is on a disk shared by all machines of the run.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from lfpc.errors import CheckpointError
from lfpc.policies.identity import PROCESSOR_FILES, TOKENIZER_FILES
from lfpc.policies.qwen.adapters import PREFIX, save_adapters
from lfpc.policies.qwen.sums import write_sums
from lfpc.policies.settings import CheckpointSettings, local_folder, write_settings
from lfpc.storage.files import atomic_folder, remove_drafts, replace_folder
from lfpc.training.config import TrainConfig
from lfpc.training.resume import init_files
from lfpc.training.state import best_checkpoint, checkpoint_folder, step_folders
from lfpc.training.verl.translate import state_folder

LATEST = "latest_checkpointed_iteration.txt"


def saved_step(out: Path) -> int:
    """The step to resume from; 0: none.

    Raises:
        CheckpointError: verl's file with the step is unreadable.
    """
    file = state_folder(out) / LATEST
    if not file.is_file():
        return 0
    try:
        return int(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{file}: not a step ({error}); write the number of the last global_step folder into it"
        ) from error


RANK_FILES = ("model", "optim", "extra_state")
"""Beginnings of the names of verl's files, one of each per GPU."""


def check_ranks(out: Path, gpus: int) -> None:
    """Check that the checkpoint to resume from has the files of every GPU, as verl needs.

    Raises:
        CheckpointError: it has not.
    """
    step = saved_step(out)
    if not step:
        return
    folder = state_folder(out) / f"global_step_{step}" / "actor"
    missing = [
        name
        for rank in range(gpus)
        for kind in RANK_FILES
        if not (folder / (name := f"{kind}_world_size_{gpus}_rank_{rank}.pt")).is_file()
    ]
    if not missing:
        return
    found = {path.name.split("_")[3] for path in folder.glob("model_world_size_*_rank_*.pt")}
    found.discard(str(gpus))
    was = (
        f"was written by {min(found)} GPUs, not {gpus}; continue on as many"
        if found
        else f"lacks {len(missing)} files, among them {missing[0]}; copy them back"
    )
    published = step_folders(out)
    other = (
        f", or start a new run from {checkpoint_folder(out, published[-1])} (--init) in another "
        f"--out"
        if published
        else ""
    )
    raise CheckpointError(f"{folder} {was}{other}")


def remove_leftovers(out: Path, keep: int) -> None:
    """Delete what a killed run has left: drafts, verl's checkpoints after the last complete one,
    and all but the last `keep` of both.
    """
    remove_drafts(out / "checkpoints")
    if step := saved_step(out):
        states = _state_folders(out)
        complete = [folder for folder in states if _step(folder) <= step]
        for folder in {*states} - {*complete[-keep:]}:
            shutil.rmtree(folder)
    for old in step_folders(out)[:-keep]:
        shutil.rmtree(checkpoint_folder(out, old))


def publish(config: TrainConfig, step: int, settings: CheckpointSettings) -> Path:
    """Move the whole weights of verl's checkpoint of `step` to our checkpoint folder, or write its
    adapters there, add their settings, and delete the oldest ones. Returns the folder.

    Raises:
        CheckpointError: verl wrote no weights there.
    """
    actor = state_folder(config.out) / f"global_step_{step}" / "actor"
    folder = checkpoint_folder(config.out, step)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if config.lora is None:
        written = actor / "huggingface"
        if not list(written.glob("*.safetensors")):
            raise CheckpointError(f"{written}: verl wrote no weights there")
        # verl's config.json always has bfloat16
        _describe(written, config, ("config.json", *PROCESSOR_FILES), settings)
        replace_folder(written, folder)
    else:
        with atomic_folder(folder) as draft:
            save_adapters(
                gathered(actor),
                draft,
                base=local_folder(config.init),
                rank=config.lora.rank,
                alpha=config.lora.alpha,
            )
            _describe(draft, config, (*TOKENIZER_FILES, *PROCESSOR_FILES), settings)
    for old in step_folders(config.out)[: -config.keep]:
        shutil.rmtree(checkpoint_folder(config.out, old))
    for old in _state_folders(config.out)[: -config.keep]:
        shutil.rmtree(old)
    return folder


def _describe(
    folder: Path, config: TrainConfig, names: Sequence[str], settings: CheckpointSettings
) -> None:
    """Add files of the run's `--init`, settings and checksums to the weights in `folder`."""
    for name in names:
        if (init_files(config.out) / name).is_file():
            shutil.copyfile(init_files(config.out) / name, folder / name)
    write_settings(settings, folder)
    write_sums(folder)


def gathered(actor: Path) -> dict[str, Tensor]:
    """The adapters of verl's checkpoint in the folder `actor` by their names in the model, from the
    shards of all ranks. Only for checkpoints of this run, as it unpickles them.

    Raises:
        CheckpointError: verl wrote no adapters there.
    """
    files = sorted(actor.glob("model_world_size_*_rank_*.pt"), key=lambda file: _number(file.stem))
    shards: list[dict[str, Any]] = [
        torch.load(file, map_location="cpu", weights_only=False) for file in files
    ]
    names = [name for name in (shards[0] if shards else {}) if "lora_" in name]
    if not names:
        raise CheckpointError(f"{actor}: verl wrote no adapters there")
    return {name.removeprefix(PREFIX): _whole([shard[name] for shard in shards]) for name in names}


def _whole(parts: Sequence[Any]) -> Tensor:
    """A weight from its parts of all ranks, or from copies of it."""
    if not isinstance(parts[0], DTensor):
        return parts[0]
    local = [part.to_local() for part in parts]
    placement = parts[0].placements[0]
    return torch.cat(local, dim=placement.dim) if isinstance(placement, Shard) else local[0]


def _state_folders(out: Path) -> list[Path]:
    """Verl's own checkpoints, oldest first. verl itself would forget those before a resume, and
    delete before it writes.
    """
    return sorted(state_folder(out).glob("global_step_*"), key=_step)


def _step(folder: Path) -> int:
    return _number(folder.name)


def _number(name: str) -> int:
    """The number at the end of a name."""
    return int(name.rpartition("_")[2])


def keep_best(out: Path, step: int) -> Path:
    """Copy the weights of `step` to the folder of the best ones. Returns that folder."""
    best = best_checkpoint(out)
    with atomic_folder(best) as draft:
        shutil.copytree(checkpoint_folder(out, step), draft, dirs_exist_ok=True)
    return best
