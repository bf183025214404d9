import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from lfpc.errors import ConfigError
from lfpc.rewards import RewardConfig
from lfpc.storage.typed import config_from_plain, plain


class Pace(StrEnum):
    SLOW = "slow"
    FAST = "fast"


@dataclass(frozen=True, kw_only=True)
class Config:
    samples: Path
    steps: int = 4
    rate: float = 1e-3
    budget: int | None = None
    ladder: tuple[int, ...] = (16, 64)
    pace: Pace = Pace.SLOW
    device: Literal["cpu", "cuda"] = "cpu"
    weights: Mapping[str, float] = field(default_factory=lambda: {"a": 1.0})
    reward: RewardConfig = field(default_factory=RewardConfig)


CONFIG = Config(samples=Path("in"), budget=64, pace=Pace.FAST, reward=RewardConfig(grounding=1.0))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"stpes": 4}, "unknown key 'stpes'; did you mean 'steps'"),
        ({"reward": {"tol": 1}}, "reward: unknown key 'tol'; did you mean 'tool'"),
        ({"reward": {"iou_weight": 2.0}}, r"iou_weight must lie in \[0, 1\]"),
        ({"steps": "four"}, "steps: 'four' is not int"),
        ({"steps": True}, "steps: True is not int"),
        ({"rate": "fast"}, "rate: 'fast' is not float"),
        ({"ladder": [1, "x"]}, r"ladder\[1\]: 'x' is not int"),
        ({"pace": "idle"}, "pace: 'idle' is not Pace"),
        ({"device": "tpu"}, "device: 'tpu' is not"),
        ({"weights": {"a": "b"}}, r"weights\.a: 'b' is not float"),
        ({"reward": 3}, "RewardConfig is a JSON object, got 3"),
    ],
)
def test_a_wrong_key_or_value_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config_from_plain(Config, plain(CONFIG) | values, "config.json")


def test_a_configuration_survives_the_way_through_json() -> None:
    assert config_from_plain(Config, json.loads(json.dumps(plain(CONFIG))), "here") == CONFIG


def test_absent_keys_keep_defaults_and_needed_ones_are_named() -> None:
    found = config_from_plain(Config, {"samples": "in", "rate": 1}, "here")
    assert found == Config(samples=Path("in"), rate=1.0)
    with pytest.raises(ConfigError, match="'samples' is missing"):
        config_from_plain(Config, {}, "here")
