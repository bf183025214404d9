"""Our section of verl's configuration, which carries the run to every process."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig

from lfpc.storage.typed import config_from_plain
from lfpc.training.config import TrainConfig
from lfpc.training.verl.translate import NAME


def run_config(config: DictConfig) -> TrainConfig:
    """The run of verl's configuration, or of any section of it."""
    return _typed(_section(config).train)


def section(values: Mapping[str, Any]) -> dict[str, str]:
    """Our section, from the run as JSON: one text without a dollar sign, in which a prompt's own
    "${...}" is no reference to another setting.
    """
    return {"train": json.dumps(values["train"]).replace("$", "\\u0024")}


def _section(config: DictConfig) -> Any:
    root: Any = config
    while root._get_parent() is not None:
        root = root._get_parent()
    return root[NAME]


@lru_cache(maxsize=4)
def _typed(text: str) -> TrainConfig:
    return config_from_plain(TrainConfig, json.loads(text), "the run's configuration")
