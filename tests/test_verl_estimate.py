"""The estimate of a run on verl: parameters, memory, time, disk. Needs no verl."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from environments import ROOT
from lfpc.errors import CheckpointError
from lfpc.training.config import LoraConfig, TrainConfig
from lfpc.training.presets import preset
from lfpc.training.verl.clusters import HARDWARE, Cluster, hardware
from lfpc.training.verl.estimate import (
    GIB,
    Load,
    assumption,
    checkpoint_bytes,
    estimate,
    host_bytes,
    report,
    rollouts_at_once,
    shape_of_run,
    training_bytes,
    update_seconds,
)
from lfpc.training.verl.shape import SHAPES, ModelShape, shape_of_checkpoint

MINIATURE = Path(__file__).parents[1] / "src" / "lfpc" / "mini" / "checkpoint"


def test_parameter_counts_are_those_of_the_released_models_and_of_the_miniature():
    assert SHAPES["7B"].parameters == 8_292_166_656
    assert SHAPES["3B"].parameters == 3_754_622_976
    assert shape_of_checkpoint(MINIATURE).parameters == 1_672_128


@pytest.mark.slow
def test_parameter_counts_of_a_qwen3_vl_are_those_of_the_model(tmp_path):
    import tiny

    model = tiny.qwen3_model()
    model.config.save_pretrained(tmp_path)
    shape = shape_of_checkpoint(tmp_path)
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    tower = sum(weight.numel() for weight in model.model.visual.parameters())
    assert shape.vision_parameters == tower
    assert shape.cache_bytes == 2 * 2 * 3 * 2 * 16  # 3 layers, 2 heads of 16


def test_a_missing_checkpoint_is_named_and_adapters_count_as_their_base(tmp_path):
    run = TrainConfig(init=Path("Qwen/Qwen3-VL-4B-Instruct-that-is-not-in-the-cache"))
    assert shape_of_run(run, Cluster(model="3B")) == SHAPES["3B"]
    said = assumption(run, Cluster(model="3B"))
    assert f"3B (--cluster.model), because there is no checkpoint at --init {run.init}" in said
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(MINIATURE)}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    run = TrainConfig(init=tmp_path)
    assert shape_of_run(run, Cluster()).parameters == 1_672_128
    assert assumption(run, Cluster()) == ""


def test_keys_and_values_of_a_token():
    assert (
        SHAPES["7B"].cache_bytes == 57_344
    )  # 2 (keys, values) * 2 bytes * 28 layers * 4 heads * 128


def test_a_folder_of_another_architecture_has_no_shape(tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    with pytest.raises(CheckpointError, match="not the configuration of a Qwen"):
        shape_of_checkpoint(tmp_path)


TOY = ModelShape(
    hidden=10,
    layers=2,
    heads=2,
    kv_heads=1,
    intermediate=20,
    vocabulary=100,
    tied=True,
    vision_hidden=4,
    vision_depth=1,
    vision_intermediate=6,
)


LOAD = Load(first_view=9, crops=1, crop=4, text=20, written=10)


def test_training_memory_by_hand():
    # a layer: q, o 2 * 100; k, v 2 * 10 * 5; biases 10 + 2 * 5; gate, up, down 3 * 10 * 20; norms 2
    # * 10
    assert TOY.layer_parameters == 200 + 100 + 20 + 600 + 20
    # block: 4 * 16 + 4 * 4 + 3 * 4 * 6 + 2 * 6 + 4 + 2 * 4 = 176; merger: 4 + 16 * 16 + 16 + 4 * 4
    # * 10 + 10 = 446; patches: 1176 * 4
    assert TOY.vision_parameters == 4704 + 176 + 446
    assert TOY.parameters == 1000 + 2 * 940 + 10 + 5326
    cluster = Cluster(gpus_per_node=2)
    weights = 16 * TOY.parameters / 2
    gathered = 2 * (1000 + 2 * 940)
    activations = 50 * (2 * 10 * 2 + 16 * 10 + 6 * 20)
    logits = 10 * 50 * 100
    assert (
        training_bytes(TOY, TrainConfig(max_rollout_tokens=50), cluster)
        == weights + gathered + activations + logits
    )


def test_what_is_not_trained_has_weights_alone_and_adapters_a_small_checkpoint():
    cluster = Cluster(gpus_per_node=2)
    run = TrainConfig(max_rollout_tokens=50)
    frozen = replace(run, freeze_vision=True)
    lora = replace(run, lora=LoraConfig(rank=3, targets=("q_proj", "down_proj")))
    adapters = 3 * 2 * ((10 + 10) + (10 + 20))
    whole = training_bytes(TOY, run, cluster)
    assert whole - training_bytes(TOY, frozen, cluster) == 12 * TOY.vision_parameters / 2
    saved = 12 * TOY.parameters - 16 * adapters
    assert whole - training_bytes(TOY, lora, cluster) == saved / 2
    assert checkpoint_bytes(TOY, run) == 16 * TOY.parameters
    assert checkpoint_bytes(TOY, frozen) == 16 * TOY.parameters - 8 * TOY.vision_parameters
    assert checkpoint_bytes(TOY, lora) == 16 * adapters
    machine = [host_bytes(TOY, LOAD, one, cluster) for one in (run, lora)]
    sleeping = 2 * 2 * TOY.parameters  # a copy for vLLM on each GPU
    assert machine[0] - machine[1] == 8 * TOY.parameters - 12 * adapters - sleeping
    hours = [update_seconds(TOY, LOAD, one, cluster) for one in (run, frozen, lora)]
    assert hours[0] > hours[1] > hours[2] > 0.7 * hours[0]


def test_pixels_of_the_papers_step_take_eight_times_less_than_float_frames():
    # 256 x 16 rollouts of 1,024 + 1,024 visual tokens: 158 GB as verl sends them (18,816 bytes a
    # token), 19.7 GB as bytes; twice
    load = Load(first_view=1024, crops=1, crop=1024, text=0, written=0)
    run, cluster = hardware("paper", preset("stage1"))
    bare = replace(cluster, offload=False, workers=8)
    assert host_bytes(SHAPES["7B"], load, run, bare) == 2 * 4096 * 2048 * 2352 + 16 * GIB
    assert pytest.approx(158e9, rel=0.01) == 4096 * 2048 * 18816


def test_rollouts_at_once_are_what_the_cache_holds_up_to_vllms_limit():
    load = Load(first_view=16384, crops=0, crop=0, text=0, written=0)
    memory = 0.6 * 80 * GIB - 2 * SHAPES["7B"].parameters
    assert rollouts_at_once(SHAPES["7B"], load, Cluster()) == int(memory / (16384 * 57_344))
    assert (
        rollouts_at_once(
            SHAPES["7B"], Load(first_view=1, crops=0, crop=0, text=0, written=0), Cluster()
        )
        == 256
    )
    assert rollouts_at_once(SHAPES["7B"], load, Cluster(gpu_gib=8)) == 0


def test_what_does_not_fit_names_the_options_to_change():
    run, cluster = hardware("paper", preset("stage1"))
    small = replace(cluster, gpu_gib=24, host_gib=64, checkpointing=False, tokens_per_gpu=65536)
    text = report(estimate(run, small), small)
    for part in (
        "--cluster.tokens-per-gpu",
        "--cluster.checkpointing",
        "--max-rollout-tokens",
        "--cluster.sampling-share",
        "--prompts-per-step",
    ):
        assert part in text
    assert "fits" not in text.replace("does not fit", "")
    assert "training: --freeze-vision or --lora" in text


def test_a_7b_trains_adapters_on_one_gpu_of_80_gb():
    run, cluster = hardware("gpu1", replace(preset("stage1"), lora=LoraConfig()))
    found = estimate(run, replace(cluster, model="7B"))
    assert found.advice == ()
    assert "(40,370,176 trained)" in report(found, cluster)
    assert estimate(replace(run, lora=None), replace(cluster, model="7B")).advice


def test_twice_the_gpus_halve_the_time():
    run, cluster = hardware("paper", preset("stage1"))
    assert estimate(run, cluster).hours == pytest.approx(
        2 * estimate(run, replace(cluster, nodes=2)).hours, rel=0.01
    )


def test_the_table_of_the_page_is_what_a_dry_run_prints():
    page = (ROOT / "docs" / "cluster.md").read_text()
    row = r"\| `(\w+)`(?:, `--([\w-]+)`)? \| .* (\dB) \| (\d+) x (\d+)" + r" \| (\d+)" * 3
    rows = re.findall(rf"^{row} \|$", page, re.MULTILINE)
    assert {name for name, *_ in rows} == HARDWARE.keys()
    for name, option, model, *shown in rows:
        changes = {"": {}, "lora": {"lora": LoraConfig()}, "freeze-vision": {"freeze_vision": True}}
        run, cluster = hardware(name, replace(preset("stage1"), **changes[option]))
        found = estimate(run, replace(cluster, model=model))
        numbers = [found.training_gib, found.host_gib, found.hours]
        assert [run.prompts_per_step, run.group_size, *map(round, numbers)] == [*map(int, shown)]
