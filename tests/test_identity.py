"""Results know what they came from: questions, pictures, weights, prompts. A path is no identity,
and what changes no result may change."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import ChatServer
from PIL import Image

from lfpc import cli
from lfpc.errors import RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.policies.identity import checkpoint_identity
from lfpc.run_samples import keep_whole_set
from lfpc.samples import Sample, read_samples, write_samples
from lfpc.storage.identity import file_hash
from lfpc.storage.runs import Kind, RunFolder, check_run
from lfpc.training.config import TrainConfig
from lfpc.training.resume import check_steps, keep_init_files


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (60, 60), "red" if name == "a" else "blue").save(
            folder / f"{name}.png", compress_level=0
        )
    samples = [
        Sample(
            id=name,
            image=folder / f"{name}.png",
            question=f"Which way does {name} point?",
            answer="A",
            options=("left", "right"),
        )
        for name in ("a", "b")
    ]
    write_samples(samples, folder)
    return folder


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(say=lambda question, turn, pictures: "<answer>A</answer>") as one:
        yield one


def evaluate(data: Path, out: Path, server: ChatServer, *more: str, model: str = "scripted") -> int:
    words = ["eval", str(data), "--out", str(out), "--base-url", server.base_url, "--model", model]
    return cli.main([*words, "--budget", "4", "--probes", "own", "--retries", "0", *more])


def change(data: Path, **fields: object) -> None:
    """Change the second sample."""
    first, second = read_samples(data)
    write_samples([first, replace(second, **fields)], data)


def repaint(data: Path) -> None:
    """Another picture of the same size, in bytes and pixels, under the same name."""
    before = (data / "b.png").stat().st_size
    Image.new("RGB", (60, 60), "lime").save(data / "b.png", compress_level=0)
    assert (data / "b.png").stat().st_size == before


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"question": "Up or down?"}, "the question of sample 'b' has changed"),
        ({"answer": "B"}, "the answer of sample 'b' has changed"),
        ({"options": ("up", "down")}, "the options of sample 'b' have changed"),
        (None, "the picture of sample 'b' has changed"),
    ],
)
def test_answers_are_not_taken_for_those_of_changed_data(
    data, tmp_path, server, capsys, fields, what
):
    assert evaluate(data, tmp_path / "out", server) == 0
    results = (tmp_path / "out/results.json").read_bytes()
    calls = len(server.requests)
    if fields is None:
        repaint(data)
    else:
        change(data, **fields)
    capsys.readouterr()
    assert evaluate(data, tmp_path / "out", server) == 1
    assert what in capsys.readouterr().err
    assert len(server.requests) == calls
    assert (tmp_path / "out/results.json").read_bytes() == results


def test_moved_folders_other_spellings_and_new_samples_change_no_answer(
    data, tmp_path, server, monkeypatch, capsys
):
    assert evaluate(data, tmp_path / "out", server) == 0
    calls = len(server.requests)
    (tmp_path / "out").rename(tmp_path / "moved")
    data.rename(tmp_path / "renamed")
    os.utime(tmp_path / "renamed/a.png", (1, 1))
    monkeypatch.chdir(tmp_path)
    data = Path("renamed")
    change(data, budget=9, category="new", meta={"note": 1})  # --budget decides
    assert evaluate(data, Path("moved"), server) == 0, capsys.readouterr().err
    assert len(server.requests) == calls
    third = replace(read_samples(data)[0], id="c")
    write_samples([*read_samples(data), third], data)
    assert evaluate(data, Path("moved"), server) == 0
    assert len(server.requests) == calls + 1


def test_a_wrong_model_with_which_nothing_was_answered_may_be_corrected(
    data, tmp_path, server, capsys
):
    assert evaluate(data, tmp_path / "out", server, model="wrong") == 1
    assert (
        json.loads((tmp_path / "out/4/own/config.json").read_text())["config"]["model"] == "wrong"
    )
    capsys.readouterr()
    assert evaluate(data, tmp_path / "out", server) == 0, capsys.readouterr().err
    assert evaluate(data, tmp_path / "out", server, model="other") == 1
    assert "model" in capsys.readouterr().err


def test_an_old_run_without_hashes_is_compared_by_its_samples(data, tmp_path, server, capsys):
    assert evaluate(data, tmp_path / "out", server) == 0
    run = tmp_path / "out/4/own"
    head = json.loads((run / "config.json").read_text())
    del head["inputs"]
    (run / "config.json").write_text(json.dumps(head))
    rows = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    for row in rows:
        del row["asked"]
    (run / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert evaluate(data, tmp_path / "out", server, model="other") == 1
    assert evaluate(data, tmp_path / "out", server) == 0
    change(data, question="Up or down?")
    capsys.readouterr()
    assert evaluate(data, tmp_path / "out", server) == 1
    assert "the question of sample 'b' has changed" in capsys.readouterr().err


# --- runs and weights


def checkpoint(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text('{"model_type": "qwen2_5_vl", "transformers_version": "1"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text('{"max_pixels": 12845056}')
    return folder


def test_a_checkpoint_is_its_content(tmp_path):
    known = checkpoint_identity(checkpoint(tmp_path / "a"))
    assert known == checkpoint_identity(checkpoint(tmp_path / "b"))
    (tmp_path / "b/config.json").write_text(
        '{"model_type": "qwen2_5_vl"}'
    )  # saved by another version
    assert known == checkpoint_identity(tmp_path / "b")
    (tmp_path / "b/model.safetensors").write_bytes(b"Weights")
    other = checkpoint_identity(tmp_path / "b")
    assert [name for name in known if known[name] != other[name]] == ["weights"]
    (tmp_path / "a/tokenizer.json").write_text("[]")
    other = checkpoint_identity(tmp_path / "a")
    assert [name for name in known if known[name] != other[name]] == ["tokenizer"]
    assert checkpoint_identity(tmp_path / "nowhere") == {}


def test_adapters_are_their_content_and_that_of_their_base(tmp_path):
    base = checkpoint(tmp_path / "base")
    adapters = tmp_path / "adapters"
    adapters.mkdir()

    def known(place: Path, weights: bytes = b"A", alpha: int = 8) -> dict[str, str]:
        settings = {"peft_type": "LORA", "base_model_name_or_path": str(place)}
        (adapters / "adapter_config.json").write_text(
            json.dumps({**settings, "r": 4, "lora_alpha": alpha})
        )
        (adapters / "adapter_model.safetensors").write_bytes(weights)
        return checkpoint_identity(adapters)

    first = known(base)
    assert first["weights"] != checkpoint_identity(base)["weights"]
    assert first["tokenizer"] == checkpoint_identity(base)["tokenizer"]
    assert known(checkpoint(tmp_path / "moved")) == first
    for other in (known(base, b"B"), known(base, alpha=9), known(checkpoint(base, b"other"))):
        assert [name for name in first if first[name] != other[name]] == ["weights"]


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"a")
    first = file_hash(file)
    with monkeypatch.context() as unread:
        unread.setattr(Path, "open", None)
        assert file_hash(file) == first
    file.write_bytes(b"bb")
    assert file_hash(file) != first


def test_other_weights_under_the_same_path_are_named(tmp_path):
    init = checkpoint(tmp_path / "init")
    config = TrainConfig(init=init, out=tmp_path / "out")
    with RunFolder.open(config.out, Kind.TRAIN, config, inputs=checkpoint_identity(init)) as run:
        run.log_metrics({"step": 1})
    checkpoint(init, b"other")
    with pytest.raises(
        RunError, match=r"the weights of the existing run had the hash .*restore the"
    ):
        check_run(config.out, Kind.TRAIN, config, inputs=checkpoint_identity(init))
    shutil.rmtree(init)  # what is gone is not compared
    check_run(config.out, Kind.TRAIN, config, inputs=checkpoint_identity(init) or {"prompts": "x"})


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch": 2},
        {"sample_batch": 2},
        {"share": False},
        {"keep": 9},
        {"save_every": 3},
        {"threads": 1},
        {"device": "cpu"},
        {"log_episodes": 0},
        {"batch_tokens": 100},
        {"micro_batch_tokens": 100},
        {"gradient_checkpointing": True},
        {"gpu_memory": 24.0},
        {"steps": 90},
        {"data": Path("elsewhere"), "init": Path("./x"), "out": Path("/moved")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changes_no_result_may_change(tmp_path, changes):
    config = TrainConfig(out=tmp_path)
    inputs = {"prompts": "p"}
    with RunFolder.open(tmp_path, Kind.TRAIN, config, inputs=inputs) as run:
        run.log_metrics({"step": 1})
        known = run.id
    again = replace(config, **changes)
    with RunFolder.open(tmp_path, Kind.TRAIN, again, inputs=inputs) as run:
        assert run.config_as(TrainConfig) == again
        assert run.id == known
    with pytest.raises(RunError, match="`seed` is 0 in the existing run but 1 here"):
        check_run(tmp_path, Kind.TRAIN, replace(again, seed=1), inputs=inputs)


def test_a_served_model_is_its_name_and_no_checkpoint(tmp_path):
    config = EvaluationConfig(model="/somewhere/7b", budget=4, probe="own")
    weights = {"weights": "a"}
    with RunFolder.open(tmp_path, Kind.EVALUATION, config, inputs=weights) as run:
        run.log_episode("a", {"said": "A"})
    moved = replace(config, model="/elsewhere/7b")
    check_run(tmp_path, Kind.EVALUATION, moved, inputs=weights)
    served = replace(config, model="7b")
    with pytest.raises(
        RunError, match='`model` is "/somewhere/7b" in the existing run but "7b" here'
    ):
        check_run(tmp_path, Kind.EVALUATION, served, inputs={"model": "7b"})


def test_a_run_without_a_result_may_become_another(tmp_path):
    RunFolder.open(tmp_path, Kind.TRAIN, TrainConfig()).close()
    other = TrainConfig(seed=1)
    with RunFolder.open(tmp_path, Kind.TRAIN, other) as run:
        assert run.config_as(TrainConfig) == other


def test_steps_are_added_but_not_taken_away_nor_under_a_decay(tmp_path):
    config = TrainConfig(out=tmp_path, steps=6)
    RunFolder.open(tmp_path, Kind.TRAIN, config).close()
    check_steps(replace(config, steps=8), done=6)
    with pytest.raises(RunError, match="is at step 6 already; `steps` must be at least 6, got 5"):
        check_steps(replace(config, steps=5), done=6)
    with pytest.raises(RunError, match="`steps` is 6 in the existing run but 8 here, and the lear"):
        check_steps(replace(config, steps=8, decay=True), done=6)


def test_a_training_run_names_the_sample_that_changed(data, tmp_path):
    run = RunFolder.open(tmp_path / "out", Kind.TRAIN, TrainConfig())
    before = read_samples(data)
    keep_whole_set(run, before)
    keep_whole_set(run, before[::-1])  # nothing depends on it yet
    keep_whole_set(run, before)
    run.log_metrics({"step": 1})
    keep_whole_set(run, before)
    for samples, says in (
        (before[:1], "has 2 samples, but the data here has 1"),
        (before[::-1], "the place in the data of sample 'a' has changed"),
        ([before[0], replace(before[1], question="?")], "the question of sample 'b' has changed"),
    ):
        with pytest.raises(RunError, match=says):
            keep_whole_set(run, samples)
    repaint(data)
    with pytest.raises(RunError, match="the picture of sample 'b' has changed"):
        keep_whole_set(run, before)


def test_the_run_keeps_the_small_files_of_its_init(tmp_path):
    config = TrainConfig(init=checkpoint(tmp_path / "init"), out=tmp_path / "out")
    keep_init_files(config)
    shutil.rmtree(config.init)
    keep_init_files(config)
    kept = {file.name for file in (tmp_path / "out/init").iterdir()}
    assert kept == {"config.json", "tokenizer.json", "preprocessor_config.json"}
