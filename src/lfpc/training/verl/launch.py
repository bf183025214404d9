"""A run on verl, from a configuration to a checkpoint; `preview` prints its settings.

verl is imported inside the functions, after a check that it is installed.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lfpc.errors import CheckpointError
from lfpc.policies.bases import check_whole
from lfpc.policies.identity import PICTURE_FILES
from lfpc.policies.qwen.checkpoint import check_folder
from lfpc.policies.settings import local_folder
from lfpc.run_samples import keep_whole_set
from lfpc.samples import Sample
from lfpc.storage.files import write_json
from lfpc.storage.runs import Kind, RunFolder
from lfpc.training.config import TrainConfig
from lfpc.training.draw import first_view_tokens, training_samples, validation_samples
from lfpc.training.lengths import check_lengths
from lfpc.training.resume import check_steps, keep_init_files, run_inputs
from lfpc.training.state import check_engine, checkpoint_folder, settings_of_run
from lfpc.training.verl.checkpoints import (
    check_ranks,
    publish,
    remove_leftovers,
    saved_step,
)
from lfpc.training.verl.clusters import Cluster
from lfpc.training.verl.estimate import Preview, assumption, estimate, report
from lfpc.training.verl.translate import settings, settings_lines, state_folder
from lfpc.training.verl.versions import NEEDED, check_versions, installed_version, needed

log = logging.getLogger(__name__)
SETTINGS_FILE = "settings.json"


def preview(config: TrainConfig, cluster: Cluster) -> Preview:
    """Verl's settings, checked by verl if installed, with the estimate."""
    values = settings(config, cluster)
    verl = installed_version("verl")
    if verl is None:
        checked = "not checked: verl is not installed here"
    else:
        check_versions(NEEDED)
        from lfpc.training.verl.inside.start import composed

        composed(values, cluster)
        checked = f"checked by verl {verl}"
    found = estimate(config, cluster)
    shown = assumption(config, cluster) + report(found, cluster)
    text = f"{settings_lines(values)}\n\n{shown}\n\nsettings of verl: {checked}"
    return Preview(text, fits=not found.advice)


def check_bounds(config: TrainConfig, samples: Sequence[Sample]) -> None:
    """Check that the checkpoint's picture processor keeps views of the run's sizes; otherwise vLLM
    would resize them.

    Raises:
        CheckpointError: it would resize them.
    """
    folder = local_folder(config.init)
    token = config.crop.factor**2
    selected = max((sample.budget or 1 for sample in samples), default=1)
    needed = max(config.first_budget(selected), config.crop.max_tokens)
    for name in PICTURE_FILES:
        if not (folder / name).is_file():
            continue
        found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        found = found.get("image_processor", found)  # as transformers 5 saves it
        key, most = "max_pixels", found.get("max_pixels")  # goes before the other
        if not most:
            key, most = "size.longest_edge", found.get("size", {}).get("longest_edge")
        if most and needed > most // token:
            raise CheckpointError(
                f"{folder / name}: shows pictures of {most // token} visual tokens only, the run "
                f"has {needed}; raise {key} there to {needed * token}"
            )


def train(config: TrainConfig, cluster: Cluster) -> Path:
    """Train, or continue the run that `config.out` holds. Returns the folder of the last step's
    checkpoint.

    Raises:
        ConfigError, SampleError, PictureError, CheckpointError, RunError: before the first step
            wherever possible.
    """
    check_versions(needed(cluster))
    values = settings(replace(config, init=local_folder(config.init)), cluster)
    samples = training_samples(config.data, config)
    held_out = validation_samples(config)
    if warning := check_lengths(first_view_tokens(samples, config), config):
        log.warning("%s", warning)
    check_engine(config.out, "verl")
    check_folder(config.init)
    check_whole(config.init, "which the verl engine does not load")
    check_bounds(config, samples + held_out)
    last = min(config.steps, cluster.stop_at or config.steps)
    done = saved_step(config.out)
    check_steps(config, done)
    run = RunFolder.open(
        config.out,
        Kind.TRAIN,
        config,
        inputs=run_inputs(config, held_out),
        backend="vllm",
        device=f"verl: {cluster.nodes} x {cluster.gpus_per_node} GPUs",
    )
    keep_whole_set(run, samples)
    keep_init_files(config)
    remove_leftovers(config.out, config.keep)
    if done and not checkpoint_folder(config.out, done).is_dir():
        # the run was killed between verl's checkpoint and ours
        publish(config, done, settings_of_run(config, samples))
    if done < last:
        check_ranks(config.out, cluster.gpus)
        state_folder(config.out).mkdir(exist_ok=True)
        write_json(state_folder(config.out) / SETTINGS_FILE, values)
        run.truncate_metrics(done)
        from lfpc.training.verl.inside.start import composed, run_to_the_end

        run_to_the_end(composed(values, cluster))
    return checkpoint_folder(config.out, last)
