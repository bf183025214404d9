"""The real verl trains the shipped base on this machine: two ranks, 2 + 2 steps with a stop
between, and what is left on disk."""

import os
import time
from dataclasses import replace

import pytest

if os.environ.get("VERL_PLATFORM") != "cpu":
    pytest.skip(
        "verl pins other versions, so it has an environment of its own: make test-verl",
        allow_module_level=True,
    )

import torch
from safetensors.torch import load_file
from verl_runs import BASE, cluster, config, scenes

from lfpc.errors import CheckpointError, RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.run import evaluate_probe
from lfpc.mini.folders import CROPS
from lfpc.policies.loading import load_policy
from lfpc.records import read_records
from lfpc.samples import read_samples
from lfpc.storage.runs import RunFolder, read_run
from lfpc.training.config import TrainConfig
from lfpc.training.state import best_checkpoint, check_engine, checkpoint_folder
from lfpc.training.verl.checkpoints import check_ranks, saved_step
from lfpc.training.verl.launch import train

pytestmark = [pytest.mark.verl, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four steps that was stopped after two: its configuration, and the weights it had
    then."""
    folder = tmp_path_factory.mktemp("verl")
    run = config(
        scenes(folder / "data", 8),
        folder / "run",
        validation=folder / "data",
        validation_size=4,
        validate_every=2,
    )
    train(run, cluster(2, stop_at=2))
    assert saved_step(run.out) == 2
    halfway = load_file(checkpoint_folder(run.out, 2) / "model.safetensors")
    assert [row["step"] for row in RunFolder(run.out).metrics()] == [1, 2]
    train(run, cluster(2))
    return run, halfway


def test_a_stopped_run_resumes_and_finishes(finished):
    run, _ = finished
    rows = RunFolder(run.out).metrics()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["failed"] for row in rows] == [0] * 4
    started = time.perf_counter()
    assert train(run, cluster(2)) == checkpoint_folder(run.out, 4)  # nothing is left to do
    assert time.perf_counter() - started < 10


def test_episodes_are_sampled_with_real_crops_and_rewards_above_zero(finished):
    run, _ = finished
    rows = RunFolder(run.out).metrics()
    episodes = read_records(read_run(run.out))
    assert max(row["reward_accuracy"] for row in rows) > 0
    assert max(row["reward_tool"] for row in rows) > 0
    assert all(row["tool_rate"] > 0 for row in rows)
    assert list(episodes)[:4] == ["1/0/0", "1/1/0", "1/2/0", "1/3/0"]
    assert any(turn.cut for record in episodes.values() for turn in record.turns)
    assert {record.first_view[0] for record in episodes.values()} == {
        140,
        168,
    }  # 25 and 36 visual tokens
    assert all(record.advantage is not None for record in episodes.values())


def test_metrics_have_every_reward_term_and_the_local_engines_names(finished):
    run, _ = finished
    row = RunFolder(run.out).metrics()[-1]
    wanted = (
        "reward reward_std reward_accuracy reward_format reward_tool reward_grounding accuracy "
        "tool_rate turns malformed unanswered"
    )
    wanted += (
        " box_area iou_last iou_best zero_variance entropy ratio_clip_share grad_norm loss "
        "policy_tokens logprob_gap overlong trained_rollouts"
    )
    wanted += (
        " seconds seconds_play seconds_update alarms validation_reward validation_accuracy "
        "validation_tool_rate"
    )
    assert set(wanted.split()) <= set(row)


def test_training_reads_with_the_positions_that_sampling_read_with(finished):
    """Sampling positions are ours, training's are verl's; what is left is the mass of tokens that
    may not be sampled."""
    run, _ = finished
    assert all(row["logprob_gap"] < 1e-2 for row in RunFolder(run.out).metrics())


def test_the_loss_moves_weights_in_both_halves(finished):
    run, halfway = finished
    first = load_file(BASE / "model.safetensors")
    last = load_file(checkpoint_folder(run.out, 4) / "model.safetensors")
    for before, after in ((first, halfway), (halfway, last)):
        assert set(before) == set(after)
        assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-4
    assert all(bool(torch.isfinite(weight).all()) for weight in last.values())


def test_checkpoints_are_plain_folders_and_only_the_newest_are_kept(finished):
    run, _ = finished
    folders = {path.name for path in (run.out / "checkpoints").iterdir()}
    assert folders == {"best", "step-000003", "step-000004"}
    assert {path.name for path in (run.out / "verl").glob("global_step_*")} == {
        "global_step_3",
        "global_step_4",
    }
    assert (checkpoint_folder(run.out, 4) / "config.json").read_text() == (
        BASE / "config.json"
    ).read_text()
    assert read_run(run.out).config_as(TrainConfig) == run


def test_a_checkpoint_is_evaluated_like_any_other(finished, tmp_path):
    run, _ = finished
    samples = read_samples(run.data)
    for folder in (checkpoint_folder(run.out, 4), best_checkpoint(run.out)):
        asked = EvaluationConfig(
            model=str(folder), budget=25, probe="own", crop=CROPS, max_turns=3, max_new_tokens=24
        )
        records = evaluate_probe(
            load_policy(asked), samples, asked, tmp_path / folder.name, progress=False
        )
        assert len(records) == len(samples)
        assert not any(record.failed for record in records)


def test_a_run_is_continued_by_its_engine_and_on_as_many_ranks_only(finished):
    run, _ = finished
    with pytest.raises(RunError, match="run of the verl engine"):
        check_engine(run.out, "local")
    check_engine(run.out, "verl")
    with pytest.raises(CheckpointError, match="written by 2 GPUs"):
        check_ranks(run.out, 4)
    check_ranks(run.out, 2)


def test_another_configuration_is_not_continued(finished):
    run, _ = finished
    with pytest.raises(RunError, match="learning_rate"):
        train(replace(run, learning_rate=2e-3), cluster(2))
