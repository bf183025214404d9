"""Trackers beside the run folder. wandb and trackio are doubles here: they keep what they were
told."""

import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from small_runs import config, early_tokens
from test_train_local import base  # noqa: F401 - `base` is a fixture

from lfpc import cli
from lfpc.dialogue import Answer, Turn
from lfpc.episode import Episode, Stop
from lfpc.errors import ConfigError
from lfpc.storage.runs import RunFolder
from lfpc.training.local import train
from lfpc.training.trackers import captioned_pictures
from lfpc.training.trainer import Trainer

pytestmark = pytest.mark.slow


@pytest.fixture
def hosted(monkeypatch):
    """Puts a double in the place of the package `name`; returns what it is told."""

    def install(name):
        told = SimpleNamespace(inits=[], logs=[], finished=0)
        double = SimpleNamespace(
            init=lambda **given: told.inits.append(given),
            log=lambda values, step: told.logs.append((step, values)),
            finish=lambda: setattr(told, "finished", told.finished + 1),
            Image=lambda picture, caption: (picture.size, caption),
        )
        monkeypatch.setitem(sys.modules, name, double)
        return told

    return install


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_every_step_and_episodes(base, tmp_path, hosted, name):  # noqa: F811
    told = hosted(name)
    train(
        config(base, tmp_path / "run", steps=2, validate_every=2),
        progress=False,
        reward=early_tokens,
        trackers=[name],
    )
    rows = RunFolder(tmp_path / "run").metrics()
    numbers = [(step, values) for step, values in told.logs if "reward" in values]
    assert [(step, values["reward"]) for step, values in numbers] == [
        (row["step"], row["reward"]) for row in rows
    ]
    assert all(value is not None for _, values in numbers for value in values.values())
    shown = [(step, values) for step, values in told.logs if "reward" not in values]
    assert [step for step, _ in shown] == [2]
    size, caption = shown[0][1]["episode/0"]
    assert caption.startswith("What mark is on the red kite?")
    assert min(size) >= 28
    assert told.finished == 1
    assert told.inits[0]["project"] == "lfpc"
    assert told.inits[0]["config"]["steps"] == 2


def test_a_continued_run_is_the_same_run_to_a_tracker(base, tmp_path, hosted):  # noqa: F811
    told = hosted("wandb")
    for _ in range(2):
        train(
            config(base, tmp_path / "run", steps=2),
            progress=False,
            reward=early_tokens,
            trackers=["wandb"],
        )
    assert len(told.inits) == 1, "a finished run has nothing to tell"
    train(
        config(base, tmp_path / "other" / "run", steps=1),
        progress=False,
        reward=early_tokens,
        trackers=["wandb"],
    )
    first, second = told.inits
    assert first["name"] == second["name"] == "run"
    assert first["id"] != second["id"]
    assert first["resume"] == "allow"


def test_a_tracker_that_is_not_installed_is_one_sentence_before_the_first_step(
    base,  # noqa: F811
    tmp_path,
    monkeypatch,
    capsys,
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        train(config(base, tmp_path / "run"), progress=False, trackers=["wandb"])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    command = [
        "train",
        "stage1",
        "--wandb",
        "--data",
        str(base / "data"),
        "--init",
        str(base / "init"),
        "--out",
        str(tmp_path / "b"),
    ]
    assert cli.main(command) == 1
    assert capsys.readouterr().err.startswith("lfpc: --wandb needs the package wandb")


def test_tensorboard_gets_numbers_pictures_and_texts(base, tmp_path):  # noqa: F811
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(config(base, tmp_path / "run", steps=1), progress=False, reward=early_tokens)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert "reward" in events.Tags()["scalars"]
    assert "episode/0" in events.Tags()["images"]
    assert "episode/0/text_summary" in events.Tags()["tensors"]


def test_each_picture_carries_what_was_said_after_it(tmp_path):
    sample = tiny.sample(tmp_path, 0)
    first = tiny.view(1)
    crop = tiny.crop_turn(2)
    answer = Turn(tiny.reply("<answer>7</answer>"), Answer("7"))
    shown = captioned_pictures(Episode(sample, first, (crop, answer), Stop.ANSWERED))
    assert [text for _, text in shown] == [
        f"What mark is on the red kite? \u2192 {crop.reply.text}",
        "<answer>7</answer>",
    ]
    assert np.array_equal(np.asarray(shown[1][0]), np.asarray(crop.view.image))


def test_tensorboard_shows_every_step_once_after_the_clock_went_back(
    base,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = config(base, tmp_path, save_every=2, steps=4)
    now = time.time()
    step = Trainer.step

    def stop_at_four(self, samples, number):
        if number == 4 and time.time() > now + 1e5:
            raise KeyboardInterrupt  # step 3 is written, and written again after step 2
        return step(self, samples, number)

    monkeypatch.setattr(Trainer, "step", stop_at_four)
    monkeypatch.setattr(time, "time", lambda: now + 1e6)
    with pytest.raises(KeyboardInterrupt):
        train(run, progress=False, reward=early_tokens)
    monkeypatch.setattr(time, "time", lambda: now)
    train(run, progress=False, reward=early_tokens)
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    assert [event.step for event in shown.Scalars("reward")] == [1, 2, 3, 4]
