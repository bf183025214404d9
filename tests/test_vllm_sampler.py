"""Training whose rollouts the real vLLM samples in the same process; run by `make test-vllm`."""

import json
import os
import subprocess
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import fmean

import layout
import pytest
import torch
from safetensors.torch import load_file

from environments import ROOT, interpreter, made
from environments.vllm_server import ENV
from lfpc.evaluation.places import place_at, place_records
from lfpc.mini.folders import CROPS, write_split
from lfpc.records import read_records
from lfpc.samples import read_samples, write_samples
from lfpc.storage.runs import RunFolder
from lfpc.training.state import checkpoint_folder

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        not made("vllm"),
        reason="vLLM pins other versions; .venv-vllm is missing or out of date: make test-vllm",
    ),
]
MINIATURE = ROOT / "src" / "lfpc" / "mini" / "checkpoint"
LOGPROB_BOUND = 1e-4
"""Largest difference of a token's log-probability, both in float32, of random weights too."""
EAGER = json.dumps({"enforce_eager": True})


def run(*words: object) -> str:
    """The output of vLLM's interpreter."""
    done = subprocess.run(
        [str(word) for word in (interpreter("vllm"), *words)],
        env={**os.environ, **ENV, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_samples(write_split(tmp_path_factory.mktemp("all"), "hard-test", 8), folder)
    return folder


@pytest.mark.parametrize(
    ("name", "budget", "rank"),
    [("miniature", 25, 0), ("qwen2_5_vl", 64, 4), ("qwen3_vl", 64, 0)],
)
def test_both_engines_say_the_same_greedily_after_each_update(tmp_path, data, name, budget, rank):
    folder = MINIATURE
    if name != "miniature":
        folder = layout.published(tmp_path / name, name)
        large = tmp_path / "large"
        large.mkdir()
        write_samples(layout.enlarged(read_samples(data), large), large)
        data = large
    out = run(ROOT / "tests" / "sampler_side.py", folder, data, budget, rank)
    rows = [json.loads(line) for line in out.splitlines() if line.startswith('{"numbers"')]
    assert len(rows) == 3
    for row in rows:
        theirs, ours = row["vllm"], row["ours"]
        assert [[ids for ids, _ in turns] for turns in theirs] == [
            [ids for ids, _ in turns] for turns in ours
        ]
        gaps = [
            abs(a - b)
            for pair in zip(chain(*theirs), chain(*ours), strict=True)
            for a, b in zip(pair[0][1], pair[1][1], strict=True)
        ]
        assert max(gaps) < LOGPROB_BOUND
    assert len({json.dumps(row["ours"]) for row in rows}) == 3  # the updates changed the replies
    for row in rows[1:]:
        assert row["numbers"]["grad_norm"] > 0
        assert 0 < row["numbers"]["logprob_gap_mean"] <= row["numbers"]["logprob_gap"]
        assert row["numbers"]["logprob_gap"] < LOGPROB_BOUND


@pytest.mark.parametrize("lora", [(), ("--lora", "rank=4", "alpha=8")], ids=["all", "lora"])
def test_a_stopped_run_continues_with_the_same_rollouts(tmp_path, data, lora):
    """Numbers agree to rounding: vLLM's sums are not the same, bit for bit, from process to
    process."""
    words = ["-m", "lfpc", "train", "stage1", "--data", data, "--init", MINIATURE, *lora]
    words += ["--sampler", "vllm", "--engine-options", EAGER, "--device", "cpu", "--max-turns", 3]
    words += ["--crop.min-tokens", CROPS.min_tokens, "--crop.max-tokens", CROPS.max_tokens]
    words += ["--prompts-per-step", 4, "--group-size", 4, "--max-new-tokens", 24]
    words += ["--first-view", "fixed", "--fixed-budget", 25, "--learning-rate", 1e-3]
    words += ["--validation", data, "--validate-every", 1, "--save-dtype", "float32"]
    run(*words, "--steps", 2, "--out", tmp_path / "whole")
    run(*words, "--steps", 1, "--out", tmp_path / "parts")
    run(*words, "--steps", 2, "--out", tmp_path / "parts")
    whole, parts = (
        [
            {key: value for key, value in row.items() if not key.startswith("seconds")}
            for row in RunFolder(tmp_path / name).metrics()
        ]
        for name in ("whole", "parts")
    )
    assert replies(tmp_path / "whole") == replies(tmp_path / "parts")
    for a, b in zip(whole, parts, strict=True):
        assert a.pop("alarms") == b.pop("alarms")
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    assert all(row["grad_norm"] > 0 and row["crops"] > 0 for row in whole)
    assert all(0 < row["logprob_gap"] < LOGPROB_BOUND for row in whole)
    saved = [
        load_file(next(checkpoint_folder(tmp_path / name, 2).glob("*model.safetensors")))
        for name in ("whole", "parts")
    ]
    for name, weight in saved[0].items():
        torch.testing.assert_close(weight, saved[1][name], rtol=0, atol=1e-4)


def replies(folder: Path) -> dict[str, list[str]]:
    """The texts of the logged episodes."""
    records = read_records(RunFolder(folder))
    return {key: [turn.text for turn in one.turns] for key, one in records.items()}


def test_a_run_that_samples_with_vllm_learns(tmp_path):
    """The miniature's Stage I. 128 rollouts are more than vLLM reads at once."""
    data = tmp_path / "data"
    write_split(data, "wide", 320)
    words = ["-m", "lfpc", "train", "stage1", "--data", data, "--init", MINIATURE]
    words += ["--sampler", "vllm", "--engine-options", EAGER, "--device", "cpu", "--max-turns", 3]
    words += ["--crop.min-tokens", CROPS.min_tokens, "--crop.max-tokens", CROPS.max_tokens]
    words += ["--prompts-per-step", 16, "--max-new-tokens", 24, "--temperature", 0.6]
    words += ["--first-view", "fixed", "--fixed-budget", 25, "--learning-rate", 3e-4]
    words += ["--steps", 25, "--freeze-vision", "--warmup", 5, "--decay", "--save-every", 25]
    run(*words, "--out", tmp_path / "run")
    accuracy = [row["accuracy"] for row in RunFolder(tmp_path / "run").metrics()]
    assert fmean(accuracy[-5:]) > fmean(accuracy[:5]) + 0.1


def test_a_conversation_longer_than_max_model_len_fails_alone_with_a_sentence(tmp_path, data):
    samples = read_samples(data)
    long = replace(samples[1], question=samples[1].question + " Look closely." * 200)
    write_samples([samples[0], long, *samples[2:]], tmp_path / "data")
    words = ["-m", "lfpc", "eval", tmp_path / "data", "--checkpoint", MINIATURE, "--engine", "vllm"]
    words += ["--max-model-len", 512, "--engine-options", EAGER, "--budget", 25, "--probes", "own"]
    words += ["--max-new-tokens", 24, "--max-turns", 1, "--out", tmp_path / "run"]
    with pytest.raises(AssertionError, match="1 of 8 questions failed"):
        run(*words)
    records = place_records(place_at(tmp_path / "run" / "25"))["own"]
    assert [record.failed for record in records] == [sample.id == long.id for sample in samples]
    sentence = "it does not fit into 512 tokens; raise --max-model-len, or lower the budgets"
    assert sentence in str(records[1].error)
