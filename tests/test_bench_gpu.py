"""The benchmark of one GPU runs end to end on a CPU with a tiny shape."""

import json
from dataclasses import replace

import pytest
import tiny
import torch

from bench import gpu
from bench.flops import mfu, peak_tflops, update_flops
from bench.shaped import random_rollouts
from lfpc.policies.qwen.checkpoint import save_checkpoint
from lfpc.policies.transformers import TransformersPolicy
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL
from lfpc.training.config import LoraConfig

pytestmark = pytest.mark.slow


def test_every_part_runs_on_a_tiny_shape_and_is_written(tmp_path):
    pytest.importorskip("peft")
    found = gpu.measure(tmp_path, gpu.TINY, device="cpu")
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["device"] == "cpu"
    parts = written["models"]["tiny"]
    assert len(parts) == 11
    for name, figures in parts.items():
        if name != "sampling, vllm":
            assert figures["seconds"] > 0, name
            assert figures["tokens_s"] == pytest.approx(figures["tokens"] / figures["seconds"])
            assert figures["share"] == figures["at_best_s"] / figures["seconds"] > 0, name
    assert parts["sampling"]["tokens"] <= 4 * 4
    assert parts["update, all weights, no sharing"]["mfu"] == "unknown card"
    rollouts = gpu.TINY.questions * gpu.TINY.group
    assert parts["update, lora"]["tokens"] > rollouts * (2 * 16 + 8)
    assert "tiny   update, lora " in gpu.lines(found)


def test_the_flops_of_an_update_by_hand():
    encoder = TransformersPolicy(tiny.model(), tiny.tokenizer(), QWEN2_5_VL).encoder
    # 2 questions of 2 rollouts; a view and a crop of 16 tokens, 64 patches; 8 written tokens
    made = random_rollouts(encoder, questions=2, group=2, view=16, crop=16, written=8)
    shape = gpu.TINY.shapes["tiny"]
    weights = 2 * shape.layer_parameters  # of the 2 layers
    first = made[0].encoded.prefix
    lengths = [len(one.encoded.ids) for one in made]
    head = 4 * 8 * 64 * 1344
    # each of the 2 blocks attends to all 64 patches; 3 matrices of 80 x 96, 4 of 80 x 80
    patch = 2 * (2 * (4 * 80**2 + 3 * 80 * 96) + (16 * 80**2 + 4 * 80 * 64) / 4)
    picture = 64 * patch + 4 * 80 * 2 * 64**2
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    alone = 6 * (sum(lengths) * weights + head) + 12 * 64 * 2 * pairs + 3 * 8 * picture
    assert update_flops(shape, made, lora=None, share=False) == pytest.approx(alone)
    saved = 6 * 2 * first * weights + 12 * 64 * 2 * 2 * (first * (first + 1) // 2) + 3 * 2 * picture
    assert update_flops(shape, made, lora=None, share=True) == pytest.approx(alone - saved)
    adapted = 4 * (sum(lengths) * weights + head) + 12 * 64 * 2 * pairs + 8 * picture
    assert update_flops(shape, made, lora=LoraConfig(), share=False) == pytest.approx(adapted)


def test_the_peak_of_a_card_by_its_name():
    names = ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB", "NVIDIA L40S")
    assert [peak_tflops(name) for name in names] == [989, 756, 312, 362]
    assert peak_tflops("NVIDIA L4") == 121
    assert mfu(495e12, 1.0, "NVIDIA H100 80GB HBM3") == pytest.approx(495 / 989)
    assert mfu(1e12, 1.0, "cpu") == mfu(1e12, 1.0, "NVIDIA GH200 480GB") == "unknown card"


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
