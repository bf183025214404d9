import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfpc.errors import ConfigError, RunError
from lfpc.rewards import RewardConfig
from lfpc.storage.runs import Kind, RunFolder, read_run


@dataclass(frozen=True, kw_only=True)
class Config:
    samples: Path = Path("in")
    steps: int = 4
    budget: int | None = None
    ladder: tuple[int, ...] = (16, 64)
    rewards: tuple[RewardConfig, ...] = (RewardConfig(), RewardConfig(grounding=1.0))
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.0})
    reward: RewardConfig = field(default_factory=RewardConfig)


@dataclass(frozen=True, kw_only=True)
class Needy:
    name: str
    steps: int = 4


CONFIG = Config(budget=64, reward=RewardConfig(grounding=1.0))


def opened(path: Path, config: Any = CONFIG, **options: Any) -> RunFolder:
    return RunFolder.open(path, Kind.TRAIN, config, **options)


def change(path: Path, without: str = "", **values: Any) -> None:
    """Change the stored configuration of the run `path`."""
    file = path / "config.json"
    head = json.loads(file.read_text())
    head["config"] |= values
    head["config"].pop(without, None)
    file.write_text(json.dumps(head))


def test_a_run_knows_what_it_was_asked_and_where_it_ran(tmp_path: Path) -> None:
    run = opened(tmp_path / "deep/run", backend="transformers", device="cpu")
    head = json.loads((run.path / "config.json").read_text())
    assert (head["kind"], head["format"]) == ("train", 2)
    assert head["config"]["reward"]["grounding"] == 1.0
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["numpy"] == np.__version__
    assert (environment["backend"], environment["device"]) == ("transformers", "cpu")
    assert run.metrics() == []
    assert run.episodes() == {}


def test_a_run_is_read_with_its_kind_format_and_configuration(tmp_path: Path) -> None:
    opened(tmp_path)
    run = read_run(tmp_path)
    assert (run.kind, run.format, run.config["budget"]) == (Kind.TRAIN, 2, 64)
    assert run.config_as(Config) == CONFIG


def test_a_configuration_of_another_class_names_its_file(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.json: unknown key 'samples'"):
        read_run(tmp_path).config_as(RewardConfig)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is no run folder: it has no config.json"),
        ("{", "is unreadable .* is this a run folder"),
        ("[]", "is no run folder: config.json is not a JSON object"),
        ('{"model_type": "qwen2_5_vl"}', "is no run folder: config.json has neither kind nor for"),
        ('{"kind": "tea", "format": 2, "config": {}}', "config.json has the kind 'tea'"),
        ('{"kind": [], "format": 2, "config": {}}', r"config.json has the kind \[\]"),
    ],
)
def test_a_folder_that_is_no_run_is_one_sentence(
    tmp_path: Path, content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=says):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("content", "number"),
    [({"format": "table", "seed": 1}, 1), ({"kind": "train", "format": 3, "config": {}}, 3)],
)
def test_a_run_of_another_format_names_the_version_that_reads_it(
    tmp_path: Path, content: dict[str, Any], number: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "environment.json").write_text('{"lfpc": "0.3.1"}')
    says = (
        rf"was written by lfpc 0\.3\.1 in format {number}; this version reads format 2: run the "
        r"command again with another output folder, or use lfpc 0\.3\.1"
    )
    with pytest.raises(RunError, match=says):
        read_run(tmp_path)
    with pytest.raises(RunError, match=says):
        opened(tmp_path)


def test_the_same_run_is_continued_and_another_refused(tmp_path: Path) -> None:
    opened(tmp_path).log_metrics({"step": 1})
    assert opened(tmp_path).metrics() == [{"step": 1}]
    with pytest.raises(
        RunError,
        match=r"`steps` is 4 in the existing run but 8 here; use the same settings or another fo",
    ):
        opened(tmp_path, replace(CONFIG, steps=8))
    with pytest.raises(RunError, match=r"`reward\.tool` is 0\.5 in the existing run but 0\.7 here"):
        opened(tmp_path, replace(CONFIG, reward=RewardConfig(grounding=1.0, tool=0.7)))
    with pytest.raises(RunError, match=r"`weights\.b` is unset in the existing run but 2 here"):
        opened(tmp_path, replace(CONFIG, weights={"a": 1.0, "b": 2}))
    with pytest.raises(RunError, match=r"`ladder\[1\]` is 64 in the existing run but 32 here"):
        opened(tmp_path, replace(CONFIG, ladder=(16, 32)))
    with pytest.raises(RunError, match="already holds a run"):
        opened(tmp_path, resume=False)
    with pytest.raises(RunError, match="holds a run of kind train, not evaluation"):
        RunFolder.open(tmp_path, Kind.EVALUATION, CONFIG)


def test_a_new_setting_with_its_default_leaves_an_old_run_resumable(tmp_path: Path) -> None:
    opened(tmp_path).log_metrics({"step": 1})
    change(
        tmp_path,
        without="steps",
        reward={"grounding": 1.0},
        rewards=[{}, {"grounding": 1.0}],
    )
    with pytest.raises(RunError, match="`steps` is unset in the existing run but 8 here"):
        opened(tmp_path, replace(CONFIG, steps=8))
    with pytest.raises(RunError, match=r"`reward\.tool` is unset in the existing run but 0\.7"):
        opened(tmp_path, replace(CONFIG, reward=RewardConfig(grounding=1.0, tool=0.7)))
    opened(tmp_path)
    assert read_run(tmp_path).config["steps"] == 4


def test_a_new_setting_without_a_default_is_named(tmp_path: Path) -> None:
    opened(tmp_path, Needy(name="a")).log_metrics({"step": 1})
    change(tmp_path, without="name")
    with pytest.raises(RunError, match='`name` is unset in the existing run but "a" here'):
        opened(tmp_path, Needy(name="a"))


def test_a_setting_that_this_version_does_not_know_is_named(tmp_path: Path) -> None:
    opened(tmp_path).log_metrics({"step": 1})
    change(tmp_path, colour="red")
    with pytest.raises(RunError, match='the existing run has `colour` = "red", which this version'):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["samples.jsonl", "results.json"])
def test_a_new_run_does_not_write_into_a_folder_of_something_else(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("kept")
    with pytest.raises(RunError, match=rf"already holds {name}.*use another folder"):
        RunFolder.open(tmp_path, Kind.SELECTION, RewardConfig())
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == [name]


def test_a_torn_last_line_is_skipped_and_cut_on_opening(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.log_metrics({"step": 1})
    run.log_episode("a", {"said": "K"})
    for name in ("metrics.jsonl", "episodes.jsonl"):
        with (tmp_path / name).open("ab") as file:
            file.write(b'{"step": 2, "x": "')
    assert run.metrics() == [{"step": 1}]
    run = opened(tmp_path)
    run.log_metrics({"step": 2})
    assert run.metrics() == [{"step": 1}, {"step": 2}]
    assert list(run.episodes()) == ["a"]


def test_metrics_after_a_step_are_dropped_for_a_resume(tmp_path: Path) -> None:
    run = opened(tmp_path)
    for step in range(1, 5):
        run.log_metrics({"step": step, "loss": np.float32(0.5)})
    run.truncate_metrics(2)
    assert run.metrics() == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.5}]


def test_of_two_episodes_with_one_key_the_last_counts(tmp_path: Path) -> None:
    run = opened(tmp_path)
    for key, said in (("a", "K"), ("b", "L"), ("a", "M")):
        run.log_episode(key, {"said": said})
    assert {key: row["said"] for key, row in run.episodes().items()} == {"a": "M", "b": "L"}


def test_a_disk_that_refuses_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file: a file is in the way; name another folder"):
        opened(tmp_path / "file")
    run = opened(tmp_path / "run")
    (run.path / "metrics.jsonl").symlink_to("/dev/full")  # every write fails with "no space left"
    with pytest.raises(
        RunError, match=r"metrics\.jsonl cannot be written or read: No space left on device"
    ):
        run.log_metrics({"step": 1})


def test_the_draft_of_an_interrupted_rewrite_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(tmp_path)
    run.log_metrics({"step": 1})

    def refuse(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RunError, match="No space left"):
        run.truncate_metrics(0)
    assert run.metrics() == [{"step": 1}]
