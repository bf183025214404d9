"""A run on verl, from a configuration to a checkpoint; or, with `preview`, what would be run. verl is imported inside the functions."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfpc.errors import ConfigError, LfpcError, RunError
from lfpc.policies.checkpoint import check_folder
from lfpc.runs import RunFolder, write_json
from lfpc.train.config import TrainConfig
from lfpc.train.draw import training_samples
from lfpc.train.state import check_engine, checkpoint_folder
from lfpc.train.verl.checkpoints import check_ranks, saved_step
from lfpc.train.verl.clusters import Cluster
from lfpc.train.verl.estimate import estimate, report
from lfpc.train.verl.export import export_samples, exported_samples
from lfpc.train.verl.translate import Files, check_translatable, settings, settings_lines
from lfpc.train.verl.versions import check_versions, installed_verl

SETTINGS_FILE = "settings.json"


def preview(config: TrainConfig, cluster: Cluster) -> str:
    """What would be run: verl's settings, checked by verl where it is installed, and what they need."""
    values = settings(config, cluster)
    if installed_verl() is None:
        checked = "not checked: verl is not installed here"
    else:
        check_versions()
        composed(values, cluster)
        checked = f"checked by verl {installed_verl()}"
    return f"{settings_lines(values)}\n\n{report(estimate(config, cluster), cluster)}\n\nsettings of verl: {checked}"


def train(config: TrainConfig, cluster: Cluster) -> Path:
    """Train, or continue the run that `config.out` holds. Returns the folder of the last step's checkpoint.

    Raises:
        ConfigError, SampleError, PictureError, CheckpointError, RunError: before the first step wherever possible.
    """
    check_versions()
    check_translatable(config, cluster)
    samples = training_samples(config.data, config)
    held_out = training_samples(config.validation, config)[: config.validation_size] if config.validation else samples[:1]
    check_engine(config.out, "verl")
    check_folder(config.init)
    files, last = Files(config.out.absolute()), min(config.steps, cluster.stop_at or config.steps)
    run = RunFolder.open(config.out, config, device=f"verl: {cluster.nodes} x {cluster.gpus_per_node} GPUs")
    done = saved_step(config.out)
    if done < last:
        check_ranks(config.out, cluster.gpus)
        for part, file in ((samples, files.train), (held_out, files.validation)):
            if len(exported_samples(export_samples(part, file))) != len(part):
                raise RunError(f"{file} does not hold the {len(part)} samples that were written to it; is the disk full?")
        values = settings(config, cluster)
        write_json(files.state / SETTINGS_FILE, values)
        run.truncate_metrics(done)
        _run(composed(values, cluster))
    return checkpoint_folder(config.out, last)


def composed(values: Mapping[str, Any], cluster: Cluster) -> Any:
    """verl's whole configuration with `values` in it, checked by verl.

    Raises:
        ConfigError: verl knows no such key, or refuses a value.
    """
    import verl
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    with initialize_config_dir(config_dir=str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        config = compose("ppo_trainer")
    try:
        for key, value in values.items():
            OmegaConf.update(config, key.lstrip("+"), value, force_add=key.startswith("+"))
        for setting in cluster.verl:
            key, _, value = setting.partition("=")
            OmegaConf.update(config, key.lstrip("+"), OmegaConf.create(f"value: {value}").value, force_add=key.startswith("+"))
        auto_set_device(config)
        validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError, TypeError) as error:
        raise ConfigError(f"verl refuses the settings: {_first_line(error.__cause__ or error)}") from error
    return config


def _run(config: Any) -> None:
    import ray
    from ray.exceptions import RayError
    from verl.trainer.main_ppo import run_ppo

    from lfpc.train.verl.inside.runner import remote_runner

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        run_ppo(config, task_runner_class=remote_runner)
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, LfpcError):
            raise type(cause)(_first_line(cause)) from error
        raise RunError(f"verl stopped: {_last_line(error)}; the log above says where, docs/cluster.md what to do about the usual ones") from error
    finally:
        ray.shutdown()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _last_line(error: BaseException) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
