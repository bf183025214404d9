"""verl's checkpoints as ours.

    verl/global_step_10/           verl's own checkpoint: weights and optimiser, a shard per rank
    verl/latest_checkpointed_iteration.txt
    checkpoints/step-000010/       the whole weights: loads anywhere, --init of Stage II
    checkpoints/best/              the weights with the best validation so far

The run folder is on a disk shared by all machines of the run.
"""

import shutil
from pathlib import Path

from lfpc.errors import CheckpointError
from lfpc.policies.identity import PROCESSOR_FILES
from lfpc.policies.settings import CheckpointSettings, write_settings
from lfpc.storage.files import atomic_folder, replace_folder
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


def check_ranks(out: Path, gpus: int) -> None:
    """Check that the checkpoint to resume from has one shard for each GPU, as verl needs.

    Raises:
        CheckpointError: it has not.
    """
    step = saved_step(out)
    folder = state_folder(out) / f"global_step_{step}" / "actor"
    if not step or (folder / f"model_world_size_{gpus}_rank_0.pt").is_file():
        return
    found = [path.name.split("_")[3] for path in folder.glob("model_world_size_*_rank_0.pt")]
    was = f"written by {found[0]} GPUs" if found else "not whole"
    raise CheckpointError(
        f"{folder} is {was}; continue on as many, or start a new run from "
        f"{checkpoint_folder(out, step)} (--init)"
    )


def publish(config: TrainConfig, step: int, settings: CheckpointSettings) -> Path:
    """Move the whole weights of verl's checkpoint of `step` to our checkpoint folder, add their
    settings, and delete the oldest ones. Returns the folder.

    Raises:
        CheckpointError: verl wrote no weights there.
    """
    written = state_folder(config.out) / f"global_step_{step}" / "actor" / "huggingface"
    folder = checkpoint_folder(config.out, step)
    if not list(written.glob("*.safetensors")):
        raise CheckpointError(f"{written}: verl wrote no weights there")
    for name in (
        "config.json",
        *PROCESSOR_FILES,
    ):  # verl's config.json always has bfloat16
        if (init_files(config.out) / name).is_file():
            shutil.copyfile(init_files(config.out) / name, written / name)
    write_settings(settings, written)
    folder.parent.mkdir(parents=True, exist_ok=True)
    replace_folder(written, folder)
    for old in step_folders(config.out)[: -config.keep]:
        shutil.rmtree(checkpoint_folder(config.out, old))
    for old in _state_folders(config.out)[: -config.keep]:
        shutil.rmtree(old)
    return folder


def _state_folders(out: Path) -> list[Path]:
    """Verl's own checkpoints, oldest first. verl itself would forget those before a resume, and
    delete before it writes.
    """
    return sorted(
        state_folder(out).glob("global_step_*"),
        key=lambda folder: int(folder.name.rpartition("_")[2]),
    )


def keep_best(out: Path, step: int) -> Path:
    """Copy the weights of `step` to the folder of the best ones. Returns that folder."""
    best = best_checkpoint(out)
    with atomic_folder(best) as draft:
        shutil.copytree(checkpoint_folder(out, step), draft, dirs_exist_ok=True)
    return best
