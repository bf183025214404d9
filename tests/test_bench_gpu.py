"""The benchmark of one GPU runs end to end on a CPU with a tiny shape."""

import json
from dataclasses import replace

import pytest
import tiny
import torch

from bench import gpu
from lfpc.policies.qwen.checkpoint import save_checkpoint

pytestmark = pytest.mark.slow


def test_every_part_runs_on_a_tiny_shape_and_is_written(tmp_path):
    pytest.importorskip("peft")
    found = gpu.measure(tmp_path, gpu.TINY, device="cpu")
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["device"] == "cpu"
    parts = written["models"]["tiny"]
    assert len(parts) == 6
    for name, figures in parts.items():
        if name != "sampling, vllm":
            assert figures["seconds"] > 0, name
            assert figures["tokens_s"] == pytest.approx(figures["tokens"] / figures["seconds"])
            assert figures["share"] == figures["at_best_s"] / figures["seconds"] > 0, name
    assert parts["sampling"]["tokens"] <= 4 * 4
    rollouts = gpu.TINY.questions * gpu.TINY.group
    assert parts["update, lora"]["tokens"] > rollouts * (2 * 16 + 8)
    assert "tiny   update, lora " in gpu.lines(found)


def test_what_there_is_no_time_or_memory_for_is_listed(tmp_path, monkeypatch):
    late = gpu.measure(tmp_path, replace(gpu.TINY, limit_s=-1), device="cpu")
    assert all(part == {"not_run": "no time left"} for part in late["models"]["tiny"].values())

    def full(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu, "shaped_model", full)
    found = gpu.measure(tmp_path, gpu.TINY, device="cpu")
    assert found["models"]["tiny"]["sampling"] == {"not_run": "out of memory"}


def test_a_checkpoint_in_place_of_random_weights(tmp_path, monkeypatch):
    folder = save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path / "mine")
    monkeypatch.setattr(gpu, "shaped_model", None)
    found = gpu.measure(tmp_path, gpu.TINY, model=folder, device="cpu")
    assert list(found["models"]) == ["mine"]
    assert found["models"]["mine"]["sampling"]["tokens_s"] > 0
