"""Saved checkpoints: their precision, adapters alone and merged, and exact resume from both."""

import json
import shutil
from dataclasses import replace

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from small_runs import config, early_tokens
from transformers import AutoModelForImageTextToText

from lfpc.cli import main
from lfpc.errors import CheckpointError, ConfigError
from lfpc.policies.bases import base_of
from lfpc.policies.qwen import merging
from lfpc.policies.qwen.adapters import adapted_layers, merge_adapters
from lfpc.policies.qwen.checkpoint import dtype_of, load_checkpoint, save_checkpoint
from lfpc.policies.qwen.merging import merge
from lfpc.policies.qwen.sums import write_sums
from lfpc.policies.settings import read_settings
from lfpc.samples import write_samples
from lfpc.storage.runs import RunFolder
from lfpc.training import local
from lfpc.training.config import LoraConfig
from lfpc.training.local import train
from lfpc.training.state import load_model

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A bfloat16 checkpoint with files of its own, and a samples folder."""
    folder = tmp_path_factory.mktemp("base")
    save_checkpoint(tiny.model(), tiny.tokenizer(), folder / "init", dtype=torch.bfloat16)
    (folder / "init" / "chat_template.json").write_text(json.dumps({"chat_template": "its own"}))
    (folder / "data").mkdir()
    write_samples(
        [tiny.sample(folder / "data", n, answer=str(n)) for n in range(4)], folder / "data"
    )
    return folder


def trained(run, monkeypatch=None):
    """The run's last checkpoint and metrics; with `monkeypatch` it dies before step 3 first."""
    if monkeypatch is not None:
        steps = local.Trainer.step

        def dying(self, samples, step):
            if step == 3:
                raise KeyboardInterrupt
            return steps(self, samples, step)

        monkeypatch.setattr(local.Trainer, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            train(run, progress=False, reward=early_tokens)
        monkeypatch.undo()
    folder = train(run, progress=False, reward=early_tokens)
    rows = RunFolder(run.out).metrics()
    return folder, [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in rows]


def tensors(folder):
    return load_file(folder / "model.safetensors")


def logits(model, seed=0):
    model.eval()
    with torch.no_grad():
        ids = torch.randint(0, 250, (1, 12), generator=torch.Generator().manual_seed(seed))
        return model(input_ids=ids).logits.float()


def test_a_bfloat16_source_gives_bfloat16_checkpoints_that_resume_exactly(
    base, tmp_path, monkeypatch
):
    whole, rows = trained(config(base, tmp_path / "whole"))
    stopped, others = trained(config(base, tmp_path / "stopped"), monkeypatch)
    assert rows == others
    assert any(row["grad_norm"] for row in rows)
    saved = tensors(whole)
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    assert all(torch.equal(weight, tensors(stopped)[name]) for name, weight in saved.items())
    assert any(
        not torch.equal(weight, tensors(base / "init")[name]) for name, weight in saved.items()
    )
    config_file = json.loads((whole / "config.json").read_text())
    assert config_file["dtype"] == config_file["text_config"]["dtype"] == "bfloat16"
    assert json.loads((whole / "chat_template.json").read_text()) == {"chat_template": "its own"}
    theirs = AutoModelForImageTextToText.from_pretrained(whole)
    assert theirs.dtype == torch.bfloat16
    assert torch.equal(logits(theirs), logits(load_checkpoint(whole, dtype=torch.bfloat16)[0]))


def test_a_bfloat16_run_goes_on_exactly_without_its_source(base, tmp_path):
    whole, rows = trained(config(base, tmp_path / "whole"))
    shutil.copytree(base / "init", tmp_path / "init")
    run = config(base, tmp_path / "out", init=tmp_path / "init", steps=2)
    trained(run)
    shutil.rmtree(run.init)
    again, others = trained(replace(run, steps=4))
    assert rows == others
    saved = tensors(whole)
    assert all(torch.equal(weight, tensors(again)[name]) for name, weight in saved.items())


def test_the_precision_of_a_checkpoint_follows_the_source_or_the_option(base, tmp_path):
    kept = config(base, tmp_path / "float32", steps=1, save_dtype="float32")
    folder, _ = trained(kept)
    assert {weight.dtype for weight in tensors(folder).values()} == {torch.float32}
    save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path / "plain")
    assert dtype_of(tmp_path / "plain") == torch.float32
    folder, _ = trained(config(base, tmp_path / "run", init=tmp_path / "plain", steps=1))
    assert {weight.dtype for weight in tensors(folder).values()} == {torch.float32}


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_embeddings_survive_a_bfloat16_checkpoint(tmp_path, tied):
    made = tiny.model()
    if not tied:
        made.config.tie_word_embeddings = made.config.text_config.tie_word_embeddings = False
        made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.detach() * 1.5)
    folder = save_checkpoint(made, tiny.tokenizer(), tmp_path / "saved", dtype=torch.bfloat16)
    assert ("lm_head.weight" in tensors(folder)) == (not tied)
    again, _ = load_checkpoint(folder)
    assert torch.equal(again.lm_head.weight, made.lm_head.weight.bfloat16().float())
    assert (again.lm_head.weight is again.get_input_embeddings().weight) == tied


def test_adapters_are_saved_alone_and_resume_exactly_over_frozen_bfloat16(
    base, tmp_path, monkeypatch
):
    pytest.importorskip("peft")
    lora = LoraConfig(rank=4, alpha=8)
    whole, rows = trained(config(base, tmp_path / "whole", lora=lora, dtype="bfloat16"))
    stopped, others = trained(
        config(base, tmp_path / "stopped", lora=lora, dtype="bfloat16"), monkeypatch
    )
    assert rows == others
    assert any(row["grad_norm"] for row in rows)
    a, b = (load_file(folder / "adapter_model.safetensors") for folder in (whole, stopped))
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert {weight.dtype for weight in a.values()} == {torch.float32}
    assert not (whole / "model.safetensors").exists()
    assert (whole / "chat_template.json").is_file()
    assert (whole / "preprocessor_config.json").is_file()


@pytest.fixture(scope="module")
def adapted(base, tmp_path_factory):
    """A checkpoint of adapters that are not zero."""
    pytest.importorskip("peft")
    out = tmp_path_factory.mktemp("adapted")
    run = config(base, out, lora=LoraConfig(rank=4, alpha=8, vision=True), steps=2)
    folder, _ = trained(run)
    file = folder / "adapter_model.safetensors"
    generator = torch.Generator().manual_seed(0)
    strong = {
        n: torch.randn(w.shape, generator=generator) * 0.1 for n, w in load_file(file).items()
    }
    save_file(strong, file, metadata={"format": "pt"})
    write_sums(folder)
    return folder


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own call
def test_adapters_load_merged_as_peft_has_them(base, adapted):
    import peft

    plain = AutoModelForImageTextToText.from_pretrained(base / "init", dtype=torch.float32)
    before = logits(plain)
    theirs = peft.PeftModel.from_pretrained(plain, adapted)
    ours, _ = load_checkpoint(adapted)
    assert torch.allclose(logits(ours), logits(theirs), atol=1e-4)
    assert not torch.allclose(logits(ours), before, atol=1e-2)


def test_merged_adapters_are_a_plain_checkpoint(base, adapted, tmp_path, capsys):
    assert main(["merge", str(adapted), "--out", str(tmp_path / "merged")]) == 0
    assert str(tmp_path / "merged") in capsys.readouterr().out
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    assert theirs.dtype == torch.bfloat16
    ours, _ = load_checkpoint(adapted, dtype=torch.bfloat16)
    assert torch.equal(logits(theirs), logits(ours))
    assert read_settings(tmp_path / "merged") == read_settings(adapted)
    with pytest.raises(CheckpointError, match="exists already"):
        merge(adapted, tmp_path / "merged")
    with pytest.raises(CheckpointError, match="no adapters in it"):
        merge(base / "init", tmp_path / "other")


def test_a_merge_that_computes_something_else_is_not_written(adapted, tmp_path, monkeypatch):
    def nearly(model, folder):
        merge_adapters(model, folder)
        model.model.language_model.layers[1].mlp.up_proj.weight.mul_(1.05)

    for wrong, layer in ((lambda *_: None, "visual"), (nearly, r"layers\.1\.mlp\.up_proj")):
        monkeypatch.setattr(merging, "merge_adapters", torch.no_grad()(wrong))
        with pytest.raises(CheckpointError, match=f"something else .*{layer}.* what rounding"):
            merge(adapted, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1e-6, 1e-3, 0.1, 3.0])
def test_a_right_merge_differs_by_what_rounding_explains(adapted, tmp_path, dtype, size):
    """Also where bfloat16 drops adapters that are smaller than half of a weight's last digit."""
    shutil.copytree(adapted, tmp_path / "adapters")
    file = tmp_path / "adapters" / "adapter_model.safetensors"
    save_file({name: size * weight for name, weight in load_file(file).items()}, file)
    model, _ = load_checkpoint(base_of(adapted), dtype=dtype)
    wanted = merging.adapted_outputs(model, tmp_path / "adapters")
    merge_adapters(model, tmp_path / "adapters")
    excess = [outputs.excess() for outputs in wanted.values()]
    assert len(excess) == len(load_file(file)) // 2
    assert 0 < max(excess) <= 1


def test_damaged_adapters_and_a_damaged_base_are_found(base, adapted, tmp_path):
    for damaged in ("adapters", "base"):
        place = tmp_path / damaged
        shutil.copytree(base / "init", place / "base")
        write_sums(place / "base")
        shutil.copytree(adapted, place / "adapters")
        settings = place / "adapters/adapter_config.json"
        moved = json.loads(settings.read_text())
        moved["base_model_name_or_path"] = str(place / "base")
        settings.write_text(json.dumps(moved))
        load_checkpoint(place / "adapters")  # the base may move
        file = next((place / damaged).glob("*.safetensors"))
        content = bytearray(file.read_bytes())
        content[-2] ^= 1
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{file} is damaged"):
            load_checkpoint(place / "adapters")
        with pytest.raises(CheckpointError, match=rf"{file} is damaged"):
            merge(place / "adapters", place / "merged")


def test_what_is_wrong_with_adapters_is_said(base, adapted, tmp_path):
    run = config(base, tmp_path / "run", init=adapted, lora=LoraConfig())
    with pytest.raises(CheckpointError, match="merge them first: lfpc merge"):
        load_model(run, 0, CPU)

    def broken(name, **changes):
        folder = tmp_path / name
        shutil.copytree(adapted, folder)
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        return folder

    for name, changes, sentence in (
        ("gone", {"base_model_name_or_path": "/nowhere"}, "change the checkpoint /nowhere"),
        ("kind", {"peft_type": "IA3"}, "not the settings of low-rank adapters"),
        ("dora", {"use_dora": True}, "adapters with use_dora are not supported"),
    ):
        with pytest.raises(CheckpointError, match=sentence):
            load_checkpoint(broken(name, **changes))
    folder = broken("weights")
    (folder / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="not adapters of this model"):
        load_checkpoint(folder)


def test_adapters_go_where_they_are_asked_for(base):
    model, _ = load_checkpoint(base / "init")
    default = adapted_layers(model, LoraConfig().targets, vision=False)
    assert (
        len(default) == 7 * 4
    )  # layers of the language model; the tower's MLP has these names too
    assert not any("visual" in name for name in default)
    tower = set(adapted_layers(model, ("q_proj",), vision=True)) - set(default)
    assert {name.rpartition(".")[2] for name in tower} == {
        *("qkv", "proj", "gate_proj", "up_proj", "down_proj")
    }
    with pytest.raises(ConfigError, match=r"no layer 'qkv'; it has .*q_proj"):
        adapted_layers(model, ("q_proj", "qkv"), vision=False)


def test_frozen_weights_are_in_the_runs_precision_and_trained_ones_in_float32(base, tmp_path):
    pytest.importorskip("peft")

    def dtypes(**changes):
        model, _ = load_model(config(base, tmp_path, dtype="bfloat16", **changes), 0, CPU)
        named = list(model.named_parameters())
        return {(w.requires_grad, w.dtype) for _, w in named}, model

    assert dtypes()[0] == {(True, torch.float32)}
    both = {(True, torch.float32), (False, torch.bfloat16)}
    assert dtypes(lora=LoraConfig())[0] == both
    found, model = dtypes(freeze_vision=True)
    assert found == both
    frequencies = [b for n, b in model.named_buffers() if "inv_freq" in n]
    assert frequencies
    assert {b.dtype for b in frequencies} == {torch.float32}


def test_options_of_adapters_are_words():
    from lfpc.training.options import parsed
    from lfpc.training.presets import preset

    def lora(*words):
        return parsed(preset("stage1"), words, prog="lfpc train").run.lora

    assert lora() is None
    assert lora("--lora") == LoraConfig()
    assert lora("--lora", "rank=4", "targets=q_proj,v_proj", "vision=yes", "--steps", "3") == (
        LoraConfig(rank=4, targets=("q_proj", "v_proj"), vision=True)
    )
    for words in (("rank=x",), ("depth=3",), ("vision=maybe",), ("rank",)):
        with pytest.raises(Exception, match="--lora takes rank=16"):
            lora("--lora", *words)
