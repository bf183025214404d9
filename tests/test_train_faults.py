"""Runs that are stopped, damaged or hopeless: what is kept, and what the sentence advises."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from small_runs import config, early_tokens
from test_train_local import (  # noqa: F401 - `base` is a fixture
    base,
    weights,
    without_times,
)

from lfpc.errors import CheckpointError, ConfigError, RunError
from lfpc.playing.stopping import Terminated, sigterm_raises
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.qwen.sums import SUMS_FILE
from lfpc.storage.runs import RunFolder
from lfpc.training import local, state
from lfpc.training.config import LoraConfig
from lfpc.training.local import train
from lfpc.training.state import checkpoint_folder, saved_steps
from lfpc.training.update import Learner

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):  # noqa: F811
    """The run folder of an undisturbed run."""
    out = tmp_path_factory.mktemp("whole")
    train(config(base, out), progress=False, reward=early_tokens)
    return out


def assert_same_end(one: Path, other: Path, step: int = 4) -> None:
    rows, others = (without_times(RunFolder(path).metrics()) for path in (one, other))
    assert rows == others
    a, b = (weights(checkpoint_folder(path, step)) for path in (one, other))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert RunFolder(one).episodes().keys() == RunFolder(other).episodes().keys()


def flip_a_bit(file: Path, place: float = 0.5) -> None:
    content = bytearray(file.read_bytes())
    content[int(len(content) * place)] ^= 1
    file.write_bytes(content)


def steps_of(out: Path) -> list[int]:
    return [row["step"] for row in RunFolder(out).metrics()]


@pytest.mark.parametrize("during", ["play", "update"])
def test_sigterm_saves_the_last_whole_step_and_the_run_ends_the_same(
    base,  # noqa: F811
    whole,
    tmp_path,
    monkeypatch,
    capsys,
    during,
):
    """Abandoned while it plays step 3; not before the end of step 3 while it updates."""
    owner, name = {"play": (local.Trainer, "play"), "update": (Learner, "update")}[during]
    calls = []
    function = getattr(owner, name)

    def hit(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*args, **options)

    monkeypatch.setattr(owner, name, hit)
    run = config(base, tmp_path, save_every=4)
    with pytest.raises(Terminated), sigterm_raises():
        train(run, progress=False, reward=early_tokens)
    monkeypatch.undo()
    done = {"play": 2, "update": 3}[during]
    assert f"SIGTERM: step {done} of 4 is saved" in capsys.readouterr().err
    assert saved_steps(tmp_path) == steps_of(tmp_path)[-1:] == [done]
    train(run, progress=False, reward=early_tokens)
    assert_same_end(whole, tmp_path)


def test_the_command_ends_with_143_and_resumes(base, tmp_path):  # noqa: F811
    command = [sys.executable, "-m", "lfpc", "train", "baseline", "--data", str(base / "data")]
    command += ["--init", str(base / "init"), "--out", str(tmp_path), "--steps", "200"]
    command += ["--prompts-per-step", "1", "--group-size", "2", "--max-new-tokens", "3"]
    command += ["--max-turns", "1", "--original-budget", "16", "--save-every", "200"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        metrics = tmp_path / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 2):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said.splitlines()[-1] == (
        "lfpc: ended by SIGTERM; the same command resumes from what is written"
    )
    assert saved_steps(tmp_path) == steps_of(tmp_path)[-1:]
    assert "Traceback" not in said


def test_a_time_limit_saves_a_step_and_the_same_call_continues(base, whole, tmp_path):  # noqa: F811
    run = config(base, tmp_path, save_every=4)
    for step in (1, 2, 3, 4):
        folder = train(run, progress=False, reward=early_tokens, stop_after_s=0)
        assert folder == checkpoint_folder(tmp_path, step)  # at least one step, or none would ever
    assert_same_end(whole, tmp_path)


def test_rollouts_that_are_all_overlong_stop_the_run(base, tmp_path):  # noqa: F811
    with pytest.raises(RunError, match=r"longer than --max-rollout-tokens 40, so nothing"):
        train(config(base, tmp_path, steps=50, max_rollout_tokens=40), progress=False)
    assert steps_of(tmp_path) == [1, 2, 3]


def test_gradients_that_are_never_finite_stop_the_run(base, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(Learner, "_step", lambda self, step: None)
    with pytest.raises(RunError, match="gradient was not finite in the last 3 steps"):
        train(config(base, tmp_path, steps=50), progress=False, reward=early_tokens)


def test_weights_that_are_no_longer_finite_are_not_saved(base, tmp_path):  # noqa: F811
    run = config(base, tmp_path, save_every=1, learning_rate=1e39)
    with pytest.raises(RunError, match=r"step 1 made weights .* lower --learning-rate"):
        train(run, progress=False, reward=early_tokens)
    assert saved_steps(tmp_path) == []


def test_a_checkpoint_with_nan_is_refused(base, tmp_path):  # noqa: F811
    model = tiny.model()
    with torch.no_grad():
        model.lm_head.weight[3, 3] = float("nan")
    init = save_checkpoint(model, tiny.tokenizer(), tmp_path / "init")
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight holds NaN or infinity"):
        train(config(base, tmp_path / "run", init=init), progress=False)


@pytest.mark.parametrize(
    ("owner", "name", "error", "option"),
    [
        (local.Trainer, "play", torch.OutOfMemoryError("CUDA out of memory."), "--sample-batch"),
        (Learner, "update", RuntimeError("can't allocate memory: 9 bytes"), "--micro-batch"),
        (Learner, "update", MemoryError(), "--micro-batch"),
    ],
)
def test_too_little_memory_names_what_to_turn_down(
    base,  # noqa: F811
    tmp_path,
    monkeypatch,
    owner,
    name,
    error,
    option,
):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(RunError, match=rf"out of memory while .* lower {option} \(now 64\)"):
        train(config(base, tmp_path), progress=False)


@pytest.mark.parametrize("damaged", ["step-000004.pt", "step-000004/model.safetensors"])
def test_a_flipped_bit_is_found_and_the_advice_continues_from_the_step_before(
    base,  # noqa: F811
    whole,
    tmp_path,
    damaged,
):
    run = config(base, tmp_path / "run", steps=4)
    train(run, progress=False, reward=early_tokens)
    more = replace(run, steps=6)
    config_file = run.out / "config.json"
    config_file.write_text(config_file.read_text().replace('"steps": 4', '"steps": 6'))
    flip_a_bit(run.out / "checkpoints" / damaged)
    with pytest.raises(CheckpointError, match=r"checksum.*to resume from step 2, move") as refused:
        train(more, progress=False, reward=early_tokens)
    aside = tmp_path / "aside"
    aside.mkdir()
    folder, file = re.findall(r"move (\S+) and (\S+) to", str(refused.value))[0]
    os.rename(folder, aside / "weights")
    os.rename(Path(folder).parent / file, aside / file)
    train(more, progress=False, reward=early_tokens)
    assert steps_of(run.out) == [1, 2, 3, 4, 5, 6]
    assert without_times(RunFolder(run.out).metrics()[:4]) == without_times(
        RunFolder(whole).metrics()
    )


def test_without_an_earlier_checkpoint_the_advice_starts_from_the_weights(base, tmp_path):  # noqa: F811
    run = config(base, tmp_path / "run", keep=1)
    train(run, progress=False, reward=early_tokens)
    config_file = run.out / "config.json"
    config_file.write_text(config_file.read_text().replace('"steps": 4', '"steps": 6'))
    file = checkpoint_folder(run.out, 4).with_suffix(".pt")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="has no earlier checkpoint") as refused:
        train(replace(run, steps=6), progress=False, reward=early_tokens)
    assert steps_of(run.out) == [1, 2, 3, 4]  # nothing is lost
    (named,) = re.findall(r"--init (\S+)\)", str(refused.value))
    other = config(base, tmp_path / "other", init=Path(named), steps=1)
    assert train(other, progress=False, reward=early_tokens).is_dir()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_an_optimiser_file_of_any_content_is_a_sentence(base, tmp_path, content):  # noqa: F811
    run = config(base, tmp_path, steps=1)
    train(run, progress=False, reward=early_tokens)
    checkpoint_folder(tmp_path, 1).with_suffix(".pt").write_bytes(content)
    optimizer = torch.optim.AdamW(tiny.model().parameters())
    with pytest.raises(CheckpointError, match=r"step-000001\.pt: cannot be read"):
        state.load_state(tiny.model(), optimizer, run, 1)


def test_an_edited_file_is_accepted_once_its_line_is_removed(tmp_path):
    folder = save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path / "saved")
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "top_k": 5}))
    with pytest.raises(CheckpointError, match="if you edited it, remove its line"):
        load_checkpoint(folder)
    sums = folder / SUMS_FILE
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if file.name not in line))
    load_checkpoint(folder)
    checked = subprocess.run(["sha256sum", "--check", "--quiet", SUMS_FILE], cwd=folder)
    assert checked.returncode == 0


def test_a_start_deletes_what_a_killed_run_left(base, tmp_path, monkeypatch):  # noqa: F811
    run = config(base, tmp_path, keep=1)
    train(run, progress=False, reward=early_tokens)
    folder = tmp_path / "checkpoints"
    (folder / ".step-000006.0a1b2c.part").mkdir()
    (folder / ".step-000006.pt.0a1b2c.part").touch()
    (folder / "step-000002").mkdir()  # killed between the two parts of a deletion
    (folder / "step-000006").mkdir()  # killed between weights and optimiser
    (folder / "step-000008.pt").touch()
    (folder / "best").mkdir()
    (folder / "best").rename(folder / ".best.old")  # killed between the two halves of a replacement
    monkeypatch.setattr(local, "Trainer", None)
    train(run, progress=False)
    assert sorted(path.name for path in folder.iterdir()) == [
        "best",
        "step-000004",
        "step-000004.pt",
    ]


def test_adapters_on_tied_embeddings_are_refused(base, tmp_path):  # noqa: F811
    pytest.importorskip("peft")
    model = tiny.model()
    assert model.config.tie_word_embeddings
    for target in ("lm_head", "embed_tokens"):
        lora = LoraConfig(rank=2, alpha=4, targets=("q_proj", target))
        with pytest.raises(ConfigError, match=rf"no layer '{target}'"):
            train(config(base, tmp_path / target, lora=lora), progress=False)
