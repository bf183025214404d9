import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from lfpc.episode import episode, play
from lfpc.errors import ConfigError, RunError
from lfpc.images import CropRules, global_view, open_picture
from lfpc.looks import original_look
from lfpc.policies.human import reply_text
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.rewards import RewardConfig, episode_reward
from lfpc.samples import Sample
from lfpc.storage.runs import RunFolder, config_from_json, episode_row


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


def change(path: Path, **values: Any) -> Path:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return path


def test_a_run_knows_what_it_was_asked_and_where_it_ran(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "deep/run", CONFIG, device="cpu")
    assert json.loads((run.path / "config.json").read_text())["reward"]["grounding"] == 1.0
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["numpy"] == np.__version__
    assert environment["device"] == "cpu"
    assert run.metrics() == []
    assert run.episodes() == {}


def test_a_configuration_survives_writing_and_reading(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    assert config_from_json(Config, run.path / "config.json") == CONFIG


def test_the_same_run_is_continued_and_another_refused(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, CONFIG).log_metrics({"step": 1})
    assert RunFolder.open(tmp_path, CONFIG).metrics() == [{"step": 1}]
    with pytest.raises(
        RunError, match=r"a run of steps = 4, not 8; give the same settings to continue it"
    ):
        RunFolder.open(tmp_path, replace(CONFIG, steps=8))
    with pytest.raises(RunError, match=r"reward\.tool = 0\.5, not 0\.7"):
        RunFolder.open(tmp_path, replace(CONFIG, reward=RewardConfig(grounding=1.0, tool=0.7)))
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.open(tmp_path, CONFIG, resume=False)


def test_a_run_of_an_older_version_names_the_key_it_lacks(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, RewardConfig())
    change(tmp_path / "config.json", colour="red")
    with pytest.raises(RunError, match='colour = "red", not nothing'):
        RunFolder.open(tmp_path, RewardConfig())


def test_a_torn_last_line_is_passed_over_and_cut_off(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    run.log_metrics({"step": 1})
    run.log_episode("a", {"said": "K"})
    for name in ("metrics.jsonl", "episodes.jsonl"):
        with (tmp_path / name).open("ab") as file:
            file.write(
                b'{"step": 2, "x": "' + b"\xc3" * 200_000
            )  # longer than one read, and not even text
    assert run.metrics() == [{"step": 1}]
    run = RunFolder.open(tmp_path, CONFIG)
    run.log_metrics({"step": 2})
    assert run.metrics() == [{"step": 1}, {"step": 2}]
    assert list(run.episodes()) == ["a"]


def test_a_file_of_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, CONFIG)
    (tmp_path / "metrics.jsonl").write_text('{"st')
    assert RunFolder.open(tmp_path, CONFIG).metrics() == []
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\noops\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl:2: not a line of JSON"):
        run.metrics()


def test_metrics_after_a_step_are_dropped_for_a_resume(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    for step in range(1, 5):
        run.log_metrics({"step": step, "loss": np.float32(0.5)})
    run.truncate_metrics(2)
    assert run.metrics() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}]


def test_of_two_episodes_with_one_key_the_last_counts(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    for key, said in (("a", "K"), ("b", "L"), ("a", "M")):
        run.log_episode(key, {"said": said})
    assert {key: row["said"] for key, row in run.episodes().items()} == {"a": "M", "b": "L"}


def test_a_disk_that_refuses_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written or read"):
        RunFolder.open(tmp_path / "file", CONFIG)
    run = RunFolder.open(tmp_path / "run", CONFIG)
    (run.path / "metrics.jsonl").symlink_to("/dev/full")  # every write fails with "no space left"
    with pytest.raises(
        RunError, match=r"metrics\.jsonl cannot be written or read: No space left on device"
    ):
        run.log_metrics({"step": 1})


def test_the_draft_of_an_interrupted_rewrite_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    run.log_metrics({"step": 1})

    def refuse(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RunError, match="No space left"):
        run.truncate_metrics(0)
    assert run.metrics() == [{"step": 1}]


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
def test_a_wrong_key_or_value_is_named(tmp_path: Path, values: dict[str, Any], says: str) -> None:
    RunFolder.open(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match=says):
        config_from_json(Config, change(tmp_path / "config.json", **values))


def test_absent_keys_keep_defaults_and_needed_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"samples": "in", "rate": 1}')
    assert config_from_json(Config, path) == Config(samples=Path("in"), rate=1.0)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="'samples' is missing"):
        config_from_json(Config, path)
    with pytest.raises(ConfigError, match="not a readable configuration"):
        config_from_json(Config, tmp_path / "none.json")


def test_an_episode_as_a_row(sample: Callable[..., Sample]) -> None:
    one = sample(category="letter")
    game = episode(
        one,
        global_view(open_picture(one.image), 16),
        look=original_look(CropRules()),
        protocol=PROTOCOLS["qwen2_5_vl"],
    )
    (done,) = play([game], ScriptedPolicy(["hm", reply_text("0 0 28 28"), "<answer>K</answer>"]))
    row = episode_row(done, episode_reward(done, RewardConfig()), seed=3)
    assert json.loads(json.dumps(row)) == row
    assert [turn["action"]["kind"] for turn in row["turns"]] == ["malformed", "crop", "answer"]
    # what was written, what it means, what was shown
    asked = row["turns"][1]["action"]
    assert (asked["emitted"], asked["source"], asked["box"]) == (
        [0, 0, 28, 28],
        0,
        [0, 0, 28 / 112, 28 / 84],
    )
    assert [turn["region"] for turn in row["turns"]] == [None, [0, 0, 28 / 112, 28 / 84], None]
    # 100 x 100 pixels of the original: 100 / 28 = 3.57 -> 4 * 28
    assert [turn["view"] for turn in row["turns"]] == [None, [112, 112], None]
    assert row["reward"] == {
        "accuracy": 1.0,
        "format": -1.0,
        "tool": 0.5,
        "grounding": 0.0,
        "total": 0.5,
    }
    assert (
        row["sample"],
        row["category"],
        row["said"],
        row["correct"],
        row["stop"],
        row["seed"],
    ) == (
        "s1",
        "letter",
        "K",
        True,
        "answered",
        3,
    )


def test_a_lone_surrogate_is_kept_as_it_was(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", CONFIG)
    run.log_episode("a", {"text": "cut \ud83d here", "more": "é😀"})
    assert (run.path / "episodes.jsonl").read_bytes().isascii() is False
    assert RunFolder.open(tmp_path / "run", CONFIG).episodes()["a"] == {
        "key": "a",
        "text": "cut \ud83d here",
        "more": "é😀",
    }
