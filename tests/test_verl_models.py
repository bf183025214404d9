"""The real verl trains a Qwen3-VL in the published layout with its tower frozen, and adapters of
the shipped base: what moves, and what is left on disk."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

if os.environ.get("VERL_PLATFORM") != "cpu":
    pytest.skip(
        "verl pins other versions, so it has an environment of its own: make test-verl",
        allow_module_level=True,
    )

import layout
import torch
from safetensors.torch import load_file, save_file
from verl_runs import BASE, cluster, config, qwen3, scenes

from lfpc import cli
from lfpc.policies.qwen.checkpoint import load_checkpoint
from lfpc.policies.qwen.merging import merge
from lfpc.samples import read_samples, write_samples
from lfpc.storage.runs import RunFolder
from lfpc.training.config import LoraConfig
from lfpc.training.verl.launch import train

pytestmark = [pytest.mark.verl, pytest.mark.timeout(900)]
WORDS = "model.language_model.embed_tokens.weight"


def answers_by_chance(folder: Path) -> Path:
    """A Qwen3-VL in the published layout that replies K or L to everything: a hidden unit is large
    after every word, and the rows of these two words weigh it most."""
    layout.published(folder, "qwen3_vl")
    _, tokenizer = load_checkpoint(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    file = folder / index["weight_map"][WORDS]
    weights = load_file(file)
    weights[WORDS][:, 0] = 10
    weights[WORDS][[tokenizer.convert_tokens_to_ids(word) for word in "KL"], 0] = 20
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def test_a_qwen3_vl_in_the_published_layout_trains_with_its_tower_frozen(tmp_path, capsys):
    init = answers_by_chance(tmp_path / "init")
    data = scenes(tmp_path / "data", 2, (64, 120))  # of different lengths, as verl needs
    samples = layout.enlarged(read_samples(data), data)
    write_samples([replace(sample, answer="K") for sample in samples], data)
    changes = {"max_new_tokens": 1, "freeze_vision": True, "group_size": 2}
    run = qwen3(data, init, tmp_path / "run", **changes)
    last = train(run, cluster(1))
    rows = RunFolder(run.out).metrics()
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["logprob_gap"] < 1e-3 for row in rows)
    assert any(row["grad_norm"] for row in rows)  # two replies of a question may be equal
    before, after = (load_checkpoint(folder)[0].state_dict() for folder in (init, last))
    assert before.keys() == after.keys()
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert any(".language_model.layers." in name for name in moved)
    assert not any(".visual." in name for name in moved)
    for name in ("config.json", "chat_template.json", "preprocessor_config.json"):
        assert (last / name).read_bytes() == (init / name).read_bytes()
    words = ["eval", str(data), "--checkpoint", str(last), "--probes", "own", "--out"]
    assert cli.main([*words, str(tmp_path / "eval")]) == 0, capsys.readouterr().err


def test_adapters_are_trained_resumed_saved_alone_evaluated_and_merged(tmp_path, capsys):
    data = scenes(tmp_path / "data", 4)
    lora = LoraConfig(rank=4, alpha=8, targets=("q_proj", "down_proj"))
    run = config(data, tmp_path / "run", lora=lora, steps=2)
    first = train(run, cluster(2, stop_at=1))
    last = train(run, cluster(2))
    rows = RunFolder(run.out).metrics()
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["logprob_gap"] < 1e-2 and row["grad_norm"] > 0 for row in rows)
    assert not list(last.glob("model*.safetensors"))
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (first, last))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        moved = float((two[name] - weight).abs().max())
        assert 0 < moved < 0.003, name  # one more step from the same adapters, not from new ones
        assert bool(weight.any()), name
    merged = load_checkpoint(merge(last, tmp_path / "merged"))[0].state_dict()
    base = load_checkpoint(BASE)[0].state_dict()
    changed = {name for name, weight in base.items() if not torch.equal(weight, merged[name])}
    layers = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in one}
    assert changed == {f"{layer}.weight" for layer in layers}
    assert all(layer.endswith(lora.targets) for layer in layers)
    words = ["eval", str(data), "--checkpoint", str(last), "--probes", "own", "--out"]
    assert cli.main([*words, str(tmp_path / "eval")]) == 0, capsys.readouterr().err
