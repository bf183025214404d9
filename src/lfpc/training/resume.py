"""Whether a run may be resumed, and the files it keeps for that. Torch-free.

init/    tokenizer, picture processor and model configuration of the run's `--init`
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lfpc.errors import CheckpointError, RunError
from lfpc.evaluation.protocol import prompt_hash
from lfpc.policies.bases import weights_folder
from lfpc.policies.identity import PROCESSOR_FILES, TOKENIZER_FILES, checkpoint_identity
from lfpc.run_samples import sample_hashes
from lfpc.samples import Sample
from lfpc.storage.files import atomic_folder, disk
from lfpc.storage.identity import value_hash
from lfpc.storage.runs import Inputs, is_run, read_run
from lfpc.training.config import TrainConfig


def init_files(out: Path) -> Path:
    """Folder of the run's copy of the small files of `--init`, which its checkpoints need."""
    return out / "init"


def described_init(config: TrainConfig) -> Path:
    """Folder with the configuration and the small files of `config.init`: the run's copy, or
    without one the folder of the weights.
    """
    kept = init_files(config.out)
    return kept if kept.is_dir() else weights_folder(config.init)


def keep_init_files(config: TrainConfig) -> None:
    """Copy tokenizer, picture processor and configuration of `config.init` into the run, once.

    Raises:
        DiskError: the disk refuses.
    """
    folder = init_files(config.out)
    if folder.is_dir():
        return
    init = weights_folder(config.init)
    if not init.is_dir():
        return
    there = [init / name for name in ("config.json", *TOKENIZER_FILES, *PROCESSOR_FILES)]
    with disk(folder), atomic_folder(folder) as draft:
        for file in there:
            if file.is_file():
                shutil.copyfile(file, draft / file.name)


def run_inputs(config: TrainConfig, validation: Sequence[Sample]) -> Inputs:
    """What a run is computed from, apart from its samples; without the model if it is gone."""
    held_out = {"validation samples": value_hash(sample_hashes(validation))} if validation else {}
    prompts = {"prompts": prompt_hash(config.chat)}
    try:
        model = checkpoint_identity(config.init)
    except CheckpointError:  # gone; a run that needs it says so when it loads it
        model = {}
    return {**model, **prompts, **held_out}


def check_steps(config: TrainConfig, done: int) -> None:
    """Check that the existing run can be continued to `config.steps`.

    Raises:
        RunError: it is further, or its learning rate decays to another last step.
    """
    if not done or not is_run(config.out):
        return
    if config.steps < done:
        raise RunError(
            f"{config.out} is at step {done} already; `steps` must be at least {done}, got "
            f"{config.steps}"
        )
    steps = read_run(config.out).config.get("steps", config.steps)
    if config.decay and steps != config.steps:
        raise RunError(
            f"{config.out}: `steps` is {steps} in the existing run but {config.steps} here, and "
            f"the learning rate decays to 0 at the last step; use the same number, or another "
            f"folder"
        )
