"""Small runs on verl for tests: scenes, the shipped base, two logical GPUs."""

from dataclasses import replace
from pathlib import Path

import verl_cpu

from lfpc.images import CropRules
from lfpc.mini.folders import CROPS, write_split
from lfpc.samples import write_samples
from lfpc.training.config import TrainConfig
from lfpc.training.verl.clusters import Cluster

BASE = Path(__file__).parents[1] / "src" / "lfpc" / "mini" / "checkpoint"


def scenes(folder: Path, count: int, budgets: tuple[int, int] = (25, 36)) -> Path:
    """A samples folder; first views of 25 and 36 visual tokens take turns."""
    samples = write_split(folder, "train", count)
    write_samples(
        [replace(sample, budget=budgets[n % 2]) for n, sample in enumerate(samples)], folder
    )
    return folder


def qwen3(data: Path, init: Path, out: Path, **changes) -> TrainConfig:
    """A run of two steps of a Qwen3-VL; `data` has first views of at least 64 visual tokens."""
    small = config(
        data,
        out,
        init=init,
        protocol="qwen3_vl",
        crop=CropRules(factor=32, min_tokens=64, max_tokens=80),
        prompts_per_step=2,
        steps=2,
    )
    return replace(small, **changes)


def config(data: Path, out: Path, **changes) -> TrainConfig:
    """A run of four steps with four questions of four rollouts."""
    small = TrainConfig(
        data=data,
        init=BASE,
        out=out,
        prompts_per_step=4,
        group_size=4,
        steps=4,
        save_every=1,
        max_turns=3,
        max_new_tokens=24,
        max_rollout_tokens=600,
        learning_rate=1e-3,
        dtype="float32",
        crop=CROPS,
    )
    return replace(small, **changes)


def cluster(gpus: int, **changes) -> Cluster:
    """So many logical GPUs of this machine, with the double in place of vLLM."""
    machine = Cluster(
        gpus_per_node=gpus,
        offload=False,
        checkpointing=False,
        padding_free=False,
        rollout=verl_cpu.ENGINE,
        workers=1,
        verl=verl_cpu.settings(gpus),
    )
    return replace(machine, **changes)
