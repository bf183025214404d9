"""verl's process that drives a run, with our trainer."""

from typing import Any

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1

_Runner: Any = TaskRunnerV1  # Ray's handle; the class behind it is what is derived from


class Runner(_Runner.__ray_metadata__.modified_class):
    """verl's task runner. Ray starts it in a separate process, where our trainer must be imported
    first.
    """

    def run(self, config: DictConfig) -> None:
        """Run to the end."""
        from lfpc.training.verl.inside import trainer  # noqa: F401  (takes the place of verl's)

        super().run(config)


remote_runner = ray.remote(Runner)
