"""The estimate of the local engine against measured peaks, the settings that fit, and runs that
could train nothing."""

from dataclasses import replace

import pytest
import tiny
import torch
from live_storages import LiveStorages

from bench.shaped import random_rollouts, shaped_model
from lfpc.cli import main
from lfpc.errors import ConfigError
from lfpc.policies.transformers import TransformersPolicy
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL
from lfpc.samples import write_samples
from lfpc.training import local
from lfpc.training.config import LoraConfig, TrainConfig
from lfpc.training.lengths import check_lengths
from lfpc.training.memory import (
    Pass,
    advice,
    constant_bytes,
    fitted,
    pass_bytes,
    update_gib,
)
from lfpc.training.presets import preset
from lfpc.training.update import Learner, micro_batches
from lfpc.training.verl.shape import SHAPES, ModelShape, adapter_parameters

pytestmark = pytest.mark.slow
QUESTIONS, GROUP, VIEW, CROP, WRITTEN = 2, 4, 144, 36, 80
SMALL = ModelShape(
    hidden=128,
    layers=4,
    heads=4,
    kv_heads=4,
    intermediate=384,
    vocabulary=1344,
    tied=True,
    vision_hidden=96,
    vision_depth=4,
    vision_intermediate=256,
)
LARGER = replace(
    SMALL, hidden=256, layers=6, heads=8, kv_heads=2, intermediate=768, vision_hidden=160
)


def measured_and_estimated(shape, **changes):
    """Peak bytes of an update beside the weights, measured and by formula."""
    model = shaped_model(shape, tiny.tokenizer(), dtype=torch.float32, device="cpu")
    assert sum(weight.numel() for weight in model.parameters()) == shape.parameters
    config = TrainConfig(group_size=GROUP, prompts_per_step=QUESTIONS, **changes)
    model.model.visual.requires_grad_(not config.freeze_vision)
    policy = TransformersPolicy(model, tiny.tokenizer(), QWEN2_5_VL)
    rows = random_rollouts(
        policy.encoder, questions=QUESTIONS, group=GROUP, view=VIEW, crop=CROP, written=WRITTEN
    )
    learner = Learner(policy, config)
    learner.optimizer.step = lambda: None
    with LiveStorages() as live:
        learner.update(rows, [1.0, -1.0] * (len(rows) // 2), step=1)
    most = config.micro_batch_tokens or 32_768
    chunk = max(micro_batches(rows, range(len(rows)), 64, most), key=len)
    prompts = {id(rows[n].views[0].image): rows[n].encoded.prefix for n in chunk}
    attended = sum(len(rows[n].encoded.ids) for n in chunk)
    pictures = QUESTIONS * VIEW + len(rows) * CROP
    size = Pass(
        prompts=sum(prompts.values()),
        suffixes=attended - sum(rows[n].encoded.prefix for n in chunk),
        attended=attended,
        written=WRITTEN * len(chunk),
        pictures=min(pictures, most),
        kept=pictures <= most,
        step_pictures=pictures,
    )
    half = config.dtype == "bfloat16"
    checkpointing = bool(config.gradient_checkpointing)
    trained = sum(weight.numel() for weight in learner.weights)
    made = trained * (4 + 2 * half)  # gradients and copies; weights and optimiser are not counted
    return live.peak, made + pass_bytes(shape, config, size, half=half, checkpointing=checkpointing)


@pytest.mark.parametrize(
    "shape",
    [pytest.param(SMALL, id="small"), pytest.param(LARGER, id="larger", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("changes", "low", "high"),
    [
        ({}, 0.9, 1.2),
        ({"freeze_vision": True}, 0.9, 1.2),
        ({"micro_batch_tokens": 600}, 0.9, 1.2),
        ({"gradient_checkpointing": True}, 0.85, 1.5),
        ({"gradient_checkpointing": True, "micro_batch_tokens": 600}, 0.85, 1.5),
    ],
    ids=["plain", "frozen", "pieces", "checkpointing", "both"],
)
def test_the_formula_is_near_the_measured_peak(shape, dtype, changes, low, high):
    measured, estimated = measured_and_estimated(shape, dtype=dtype, **changes)
    assert low < estimated / measured < high


def test_constant_memory_by_hand():
    shape = SHAPES["3B"]
    full = replace(preset("stage1"), freeze_vision=False)
    assert constant_bytes(shape, full, half=False) == 16 * shape.parameters
    assert constant_bytes(shape, full, half=True) == 18 * shape.parameters
    small = replace(full, optimizer="adamw-8bit")
    assert constant_bytes(shape, small, half=True) == 12 * shape.parameters
    lora = LoraConfig(rank=2, targets=("q_proj", "down_proj"))
    adapters = 2 * 36 * ((2048 + 2048) + (11008 + 2048))
    assert adapter_parameters(shape, lora) == adapters
    assert constant_bytes(shape, replace(full, lora=lora), half=True) == (
        2 * shape.parameters + 18 * adapters
    )


@pytest.mark.parametrize(
    ("size", "gib", "changes"),
    [
        ("3B", 24, {"lora": LoraConfig()}),
        ("7B", 48, {"lora": LoraConfig()}),
        ("7B", 80, {"lora": LoraConfig(vision=True)}),
        ("3B", 80, {"freeze_vision": True, "optimizer": "adamw-8bit"}),
        ("3B", 80, {}),
    ],
)
def test_the_defaults_fit_the_gpu(size, gib, changes):
    run = replace(preset("stage1"), **changes)
    found = fitted(run, SHAPES[size], gib, half=True)
    assert found.gradient_checkpointing is True
    needed = update_gib(
        SHAPES[size], found, found.micro_batch_tokens, half=True, checkpointing=True
    )
    assert needed <= 0.9 * gib
    given = replace(run, micro_batch_tokens=512, gradient_checkpointing=False)
    assert fitted(given, SHAPES[size], gib, half=True) == given


def test_an_update_needs_no_more_for_more_questions():
    run = replace(preset("stage1"), lora=LoraConfig(), group_size=16)
    few, many = (
        update_gib(
            SHAPES["3B"],
            replace(run, prompts_per_step=count),
            4096,
            half=True,
            checkpointing=True,
        )
        for count in (8, 64)
    )
    assert many - few < 0.02 * 56 * 17  # features: 16 KB of a visual token


def test_a_dry_run_of_the_local_engine_needs_no_checkpoint(capsys):
    words = "train stage1 --dry-run --lora --gpu-memory 24 --cluster.model 3B --data no --init no"
    assert main(words.split()) == 0
    shown = capsys.readouterr().out
    assert "3.8 billion parameters (LoRA, rank 16) on one device of 24 GiB" in shown
    assert shown.rstrip().endswith("fits")
    settings = next(line for line in shown.splitlines() if "settings" in line).split()[1:]
    assert settings[-2:] == ["--gradient-checkpointing", "True"]
    assert main([*words.split(), *settings]) == 0  # they can be typed as printed
    capsys.readouterr()
    assert main([*words.replace("--lora", "").split()]) == 1
    shown = capsys.readouterr()
    assert "does not fit: use --lora, --freeze-vision" in shown.out
    assert shown.err.startswith("lfpc: the run does not fit; ")


@pytest.mark.parametrize("half", [True, False])
def test_every_option_that_a_dry_run_names_can_be_typed(half, capsys):
    config = TrainConfig(gradient_checkpointing=False)
    words = [word for one in advice(config, half=half) for word in one.split()]
    named = words[: words.index("smaller")]
    run = "train stage1 --dry-run --cluster.model 3B --data no --init no"
    assert main([*run.split(), *named]) == 0, capsys.readouterr().err


# ---- first views that leave no room


def test_views_that_leave_no_room_are_counted_or_refused():
    run = replace(preset("baseline"), max_rollout_tokens=8192, max_new_tokens=512)
    assert check_lengths([7680, 100], run) == ""
    warning = check_lengths([7681, 100, 16384], run)
    assert "2 of 3 first views have up to 16384 visual tokens" in warning
    assert "lower --original-budget to 3840 or raise --max-rollout-tokens to 32768" in warning
    with pytest.raises(ConfigError, match="nothing could be trained: 1 of 1"):
        check_lengths([16384], run)


def test_views_that_all_leave_no_room_for_a_crop_are_refused():
    run = replace(preset("stage1"), max_rollout_tokens=1000, max_new_tokens=512)
    assert run.crop.min_tokens == 16
    assert check_lengths([472], run) == check_lengths([480, 472], run) == ""  # 472 + 16 + 512
    refused = (
        r"a first view of 473 visual tokens and a reply of 512 leave no room for a crop of 16 in "
        r"--max-rollout-tokens 1000; raise it to more than 1001, or lower --crop\.min-tokens"
    )
    with pytest.raises(ConfigError, match=refused):
        check_lengths([480, 473], run)
    with pytest.raises(ConfigError, match=refused):
        check_lengths([999, 473], run)
    assert check_lengths([480, 473], replace(run, max_turns=1)) == ""


def test_the_baseline_refuses_a_12_megapixel_picture_before_it_loads_a_model(tmp_path, monkeypatch):
    tiny.picture(0, 4000, 3000).save(tmp_path / "0.png", compress_level=0)
    write_samples([tiny.sample(tmp_path, 0)], tmp_path)
    monkeypatch.setattr(local, "Trainer", None)
    run = replace(preset("baseline"), data=tmp_path, out=tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match=r"--original-budget to 3840 .* --max-rollout-tokens"):
        local.train(run)


def test_a_run_without_room_for_a_crop_is_refused_before_it_loads_a_model(tmp_path, monkeypatch):
    write_samples([tiny.sample(tmp_path, n, budget=80) for n in range(2)], tmp_path)
    monkeypatch.setattr(local, "Trainer", None)
    run = replace(preset("stage1"), data=tmp_path, out=tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match=r"80 visual tokens .* no room for a crop of 16 in"):
        local.train(replace(run, max_rollout_tokens=600))
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "run").exists()
