import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from lfpc.errors import ConfigError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.images import CropRules
from lfpc.policies.sampling import Sampling
from lfpc.rewards import RewardConfig
from lfpc.selection.run import SelectConfig
from lfpc.storage.typed import config_from_plain, plain
from lfpc.training.config import LoraConfig
from lfpc.training.presets import preset


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
    maybe: RewardConfig | None = None
    rewards: tuple[RewardConfig, ...] = ()
    number: int | float = 1


CONFIG = Config(samples=Path("in"), budget=64, pace=Pace.FAST, reward=RewardConfig(grounding=1.0))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"stpes": 4}, "unknown key 'stpes'; did you mean 'steps'"),
        ({"rewards": [{"tol": 1}]}, r"rewards\[0\]: unknown key 'tol'; did you mean 'tool'"),
        ({"maybe": {"tol": 1}}, "maybe: unknown key 'tol'; did you mean 'tool'"),
        ({"maybe": {"predicted": 1}}, "maybe.predicted: 1 should be"),
        ({"rate": None}, "rate: None should be a valid number"),
        ({"reward": {"tol": 1}}, "reward: unknown key 'tol'; did you mean 'tool'"),
        ({"reward": {"iou_weight": 2.0}}, r"iou_weight` must lie in \[0, 1\]"),
        ({"steps": "four"}, "steps: 'four' should be a valid integer"),
        ({"steps": True}, "steps: True should be a valid integer"),
        ({"rate": "fast"}, "rate: 'fast' should be a valid number"),
        ({"ladder": [1, "x"]}, r"ladder\[1\]: 'x' should be a valid integer"),
        ({"pace": "idle"}, "pace: 'idle' should be 'slow' or 'fast'"),
        ({"device": "tpu"}, "device: 'tpu' should be 'cpu' or 'cuda'"),
        ({"weights": {"a": "b"}}, r"weights\.a: 'b' should be a valid number"),
        ({"reward": 3}, "reward: 3 should be an object"),
    ],
)
def test_a_wrong_key_or_value_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config_from_plain(Config, plain(CONFIG) | values, "config.json")


def test_a_configuration_survives_the_way_through_json() -> None:
    assert config_from_plain(Config, json.loads(json.dumps(plain(CONFIG))), "here") == CONFIG


def test_a_whole_number_stays_one_where_both_kinds_are_allowed() -> None:
    for number in (1, 1.0):
        found = config_from_plain(Config, {"samples": "in", "number": number}, "here")
        assert (found.number, type(found.number)) == (number, type(number))


@pytest.mark.parametrize(
    "config",
    [
        preset("stage2"),
        replace(preset("stage1"), lora=LoraConfig()),
        EvaluationConfig(model="m", budget=None, probe="own", crop=CropRules()),
        SelectConfig(
            ratios=(1.0, 0.5), sampling=Sampling(temperature=0.7, extra_body={"top_k": 3})
        ),
    ],
    ids=["train", "lora", "evaluation", "selection"],
)
def test_every_configuration_of_a_run_survives_the_way_through_json(config: Any) -> None:
    found = json.loads(json.dumps(plain(config)))
    assert config_from_plain(type(config), found, "here") == config


def test_absent_keys_keep_defaults_and_needed_ones_are_named() -> None:
    found = config_from_plain(Config, {"samples": "in", "rate": 1}, "here")
    assert found == Config(samples=Path("in"), rate=1.0)
    with pytest.raises(ConfigError, match="'samples' is missing"):
        config_from_plain(Config, {}, "here")
