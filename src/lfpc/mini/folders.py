"""Scenes on disk, as ordinary samples folders. Each split has fixed seeds of its own."""

from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np

from lfpc.errors import CheckpointError, ConfigError, SampleError
from lfpc.images import CropRules
from lfpc.mini.scenes import (
    EASY,
    HARD,
    LARGE,
    TRANSFER,
    WIDE,
    WIDE_HARD,
    WIDE_LARGE,
    Scene,
    SceneQuestion,
    SceneRules,
    attribute_question,
    draw_scene,
    relation_question,
)
from lfpc.policies.settings import CheckpointSettings
from lfpc.samples import SAMPLES_FILE, Sample, read_samples, write_samples
from lfpc.storage.files import atomic_file

SPLITS: dict[str, tuple[int, SceneRules]] = {
    "train": (11, EASY),
    "hard": (12, HARD),
    "validation": (13, EASY),
    "test": (14, EASY),
    "hard-test": (15, HARD),
    "transfer": (16, TRANSFER),
    "large": (17, LARGE),
    "wide": (20, WIDE),
    "wide-hard": (21, WIDE_HARD),
    "wide-validation": (22, WIDE),
    "wide-test": (23, WIDE),
    "wide-large": (24, WIDE_LARGE),
}
"""Split -> (first part of its scene seeds, rules of its scenes). 10 belongs to pretraining."""
CROPS = CropRules(min_tokens=16, max_tokens=25)
"""Crop rules of the miniature: a few tokens per crop."""
BASE_SETTINGS = CheckpointSettings(
    crop=CROPS, max_turns=3, max_new_tokens=24, small_budget=25, full_budget=256
)
"""Settings of the base checkpoint: a tool call is a dozen tokens, a scene of 448 pixels 256 visual
tokens."""
RELATIONS = 0.2
"""Share of questions about the relation of two things."""


def base_checkpoint() -> Path:
    """The base checkpoint in the package.

    Raises:
        CheckpointError: this copy of the package was built without it.
    """
    folder = Path(str(files("lfpc.mini") / "checkpoint"))
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: no base checkpoint; make it with `lfpc mini pretrain --out {folder}`"
        )
    return folder


def source_of(split: str) -> str:
    """The `source` of a split's samples."""
    return f"lfpc-mini/{split}"


def write_split(
    folder: Path, split: str, count: int, *, relations: float = RELATIONS, more: bool = True
) -> list[Sample]:
    """Write the first `count` samples of `split` as a samples folder; existing pictures are kept.
    With `more`, samples may be added to those that are there.

    Raises:
        ConfigError: unknown split.
        SampleError: `folder` holds other samples, or another number.
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    there = read_samples(folder) if (folder / SAMPLES_FILE).is_file() else []
    for sample in there:
        if sample.source != source_of(split):
            raise SampleError(
                f"{folder} holds samples of {sample.source!r}, not of {source_of(split)!r}; use "
                f"another folder"
            )
    if len(there) == count:
        return there
    if len(there) > count or (there and not more):
        raise SampleError(
            f"{folder} holds {len(there)} samples, not {count}; ask for {len(there)}"
            f"{' or more' if more else ''}, or use another folder"
        )
    with ThreadPoolExecutor(2) as pool:
        samples = list(
            pool.map(lambda index: _write_sample(folder, split, index, relations), range(count))
        )
    write_samples(samples, folder, replace=False)
    return samples


def _write_sample(folder: Path, split: str, index: int, relations: float) -> Sample:
    number, rules = SPLITS[split]
    scene = draw_scene([number, index], rules)
    question = ask_about(scene, np.random.default_rng([number, index, 1]), relations)
    name = f"{split}-{index:05d}"
    picture = folder / "pictures" / f"{name}.png"
    if not picture.exists():
        with atomic_file(picture, "wb") as out:
            scene.image.save(out, format="PNG", compress_level=1)
    return Sample(
        id=name,
        image=picture,
        question=question.text,
        answer=question.answer,
        boxes=question.boxes,
        category=question.category,
        source=source_of(split),
    )


def ask_about(scene: Scene, rng: np.random.Generator, relations: float) -> SceneQuestion:
    """A question about random things of the scene; with probability `relations` a relation."""
    order = rng.permutation(len(scene.things))
    if rng.random() < relations:
        return relation_question(scene.things[int(order[0])], scene.things[int(order[1])])
    return attribute_question(scene.things[int(order[0])])
