"""verl's whole configuration from our settings, and the start of a run with it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import verl
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from ray.exceptions import RayError
from verl.trainer.main_ppo import run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils import hf_processor
from verl.utils.config import validate_config
from verl.utils.device import auto_set_device

from lfpc.errors import ConfigError, LfpcError, RunError, first_line
from lfpc.training.verl.clusters import Cluster
from lfpc.training.verl.inside.runner import remote_runner
from lfpc.training.verl.inside.section import section
from lfpc.training.verl.inside.workers import check_processor
from lfpc.training.verl.translate import OURS


def composed(values: Mapping[str, Any], cluster: Cluster) -> DictConfig:
    """Verl's whole configuration with `values`, overridden by the cluster's own settings, checked
    by verl.

    Raises:
        ConfigError: verl rejects a key or a value.
    """
    with initialize_config_dir(
        config_dir=str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None
    ):
        config = compose("ppo_trainer")
    try:
        for key, value in {**values, OURS: section(values[OURS])}.items():
            OmegaConf.update(config, key.lstrip("+"), value, force_add=key.startswith("+"))
        for setting in cluster.verl:
            key, _, value = setting.partition("=")
            OmegaConf.update(
                config,
                key.lstrip("+"),
                OmegaConf.create(f"value: {value}").value,
                force_add=key.startswith("+"),
            )
        auto_set_device(config)
        validate_config(
            config=config,
            use_reference_policy=need_reference_policy(config),
            use_critic=need_critic(config),
        )
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError, TypeError) as error:
        raise ConfigError(
            f"verl rejects the settings: {first_line(error.__cause__ or error)}"
        ) from error
    return config


def run_to_the_end(config: DictConfig) -> None:
    """Run verl to the end.

    Raises:
        CheckpointError: the picture processor of the initial checkpoint does not load.
        RunError: verl stopped with an error of its own; our errors are raised unchanged.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    path = str(config.actor_rollout_ref.model.path)
    check_processor(hf_processor(path), path)
    try:
        run_ppo(config, task_runner_class=remote_runner)
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, LfpcError):
            raise type(cause)(first_line(cause)) from error
        reason = first_line(cause) if isinstance(cause, Exception) else _last_line(error)
        raise RunError(
            f"verl stopped: {reason}; see the log above, and docs/cluster.md for the usual causes"
        ) from error
    finally:
        ray.shutdown()


def _last_line(error: BaseException) -> str:
    return next(
        (line.strip() for line in reversed(str(error).splitlines()) if line.strip()),
        type(error).__name__,
    )
