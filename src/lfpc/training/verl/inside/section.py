"""Our section of verl's configuration, which carries the run to every process."""

import json
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lfpc.storage.typed import config_from_plain
from lfpc.training.config import TrainConfig
from lfpc.training.verl.translate import NAME


def run_config(config: DictConfig) -> TrainConfig:
    """The run of verl's configuration, or of any section of it."""
    return _typed(json.dumps(OmegaConf.to_container(_section(config).train)))


def _section(config: DictConfig) -> Any:
    root: Any = config
    while root._get_parent() is not None:
        root = root._get_parent()
    return root[NAME]


@lru_cache(maxsize=4)
def _typed(text: str) -> TrainConfig:
    return config_from_plain(TrainConfig, json.loads(text), "the run's configuration")
