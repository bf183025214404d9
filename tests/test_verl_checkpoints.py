"""Before a run on verl, and what is made of its checkpoints. Needs no verl."""

import json
import re
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from lfpc.errors import CheckpointError, RunError
from lfpc.images import CropRules
from lfpc.mini.folders import BASE_SETTINGS
from lfpc.policies.settings import read_settings
from lfpc.samples import read_samples, write_samples
from lfpc.training.config import LoraConfig, TrainConfig
from lfpc.training.presets import preset
from lfpc.training.verl.clusters import Cluster
from lfpc.training.verl.translate import settings

MINIATURE = Path(__file__).parents[1] / "src" / "lfpc" / "mini" / "checkpoint"


@pytest.mark.slow
def test_a_processor_that_would_resize_our_views_is_an_error_before_the_run(sample):
    from lfpc.training.verl.launch import check_bounds

    run = TrainConfig(
        init=MINIATURE, crop=CropRules(max_tokens=1024)
    )  # the miniature's processor ends at 1,024 tokens
    check_bounds(run, [sample(budget=1024)])
    with pytest.raises(
        CheckpointError,
        match=r"of 1024 visual tokens only, the run has 2048; raise size\.longest_edge there to "
        "1605632",
    ):
        check_bounds(run, [sample(budget=2048)])
    with pytest.raises(CheckpointError, match="the run has 1025"):
        check_bounds(replace(run, crop=CropRules(max_tokens=1025)), [sample(budget=25)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "processor", "advice"),
    [
        (
            "preprocessor_config.json",
            {"max_pixels": 784 * 100, "size": {"longest_edge": 784 * 5000}},
            "100 visual tokens only, the run has 1024; raise max_pixels there to 802816",
        ),
        (
            "processor_config.json",  # as transformers 5 saves it
            {"image_processor": {"size": {"longest_edge": 784 * 100}}},
            "raise size.longest_edge there to 802816",
        ),
    ],
)
def test_the_bound_that_counts_is_named(name, processor, advice, sample, tmp_path):
    from lfpc.training.verl.launch import check_bounds

    (tmp_path / name).write_text(json.dumps(processor))
    with pytest.raises(CheckpointError, match=advice):
        check_bounds(TrainConfig(init=tmp_path), [sample(budget=25)])


@pytest.mark.slow
def test_each_engine_leaves_the_others_runs_alone(tmp_path):
    from lfpc.training.state import check_engine

    (tmp_path / "verl").mkdir()
    check_engine(tmp_path, "verl")
    with pytest.raises(RunError, match="run of the verl engine"):
        check_engine(tmp_path, "local")
    other = tmp_path / "other"
    (other / "checkpoints" / "step-000001").mkdir(parents=True)
    (other / "checkpoints" / "step-000001.pt").touch()
    check_engine(other, "local")
    with pytest.raises(RunError, match="run of the local engine"):
        check_engine(other, "verl")


@pytest.mark.slow
def test_verls_weights_are_moved_with_the_files_others_need_and_old_ones_go(tmp_path):
    from lfpc.training.resume import keep_init_files
    from lfpc.training.verl.checkpoints import (
        RANK_FILES,
        check_ranks,
        keep_best,
        publish,
        saved_step,
    )

    run = TrainConfig(init=MINIATURE, out=tmp_path, keep=1)
    keep_init_files(run)
    assert saved_step(tmp_path) == 0
    check_ranks(tmp_path, 8)
    for step in (1, 2):
        actor = tmp_path / "verl" / f"global_step_{step}" / "actor"
        (actor / "huggingface").mkdir(parents=True)
        for kind, rank in product(RANK_FILES, (0, 1)):
            (actor / f"{kind}_world_size_2_rank_{rank}.pt").touch()
        (actor / "huggingface" / "config.json").write_text("of verl")
        (actor / "huggingface" / "model.safetensors").write_bytes(bytes([step]))
        folder = publish(run, step, BASE_SETTINGS)
        assert (folder / "config.json").read_bytes() == (MINIATURE / "config.json").read_bytes()
        assert read_settings(folder) == BASE_SETTINGS
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002"]
    assert [path.name for path in (tmp_path / "verl").glob("global*")] == ["global_step_2"]
    assert (keep_best(tmp_path, 2) / "model.safetensors").read_bytes() == bytes([2])
    assert read_settings(keep_best(tmp_path, 2)) == BASE_SETTINGS
    (tmp_path / "verl" / "latest_checkpointed_iteration.txt").write_text("2")
    assert saved_step(tmp_path) == 2
    check_ranks(tmp_path, 2)
    with pytest.raises(CheckpointError, match="written by 2 GPUs") as refused:
        check_ranks(tmp_path, 8)
    (named,) = re.findall(r"from (\S+) \(--init\)", str(refused.value))
    assert Path(named) == folder  # the advice can be followed
    (actor / "optim_world_size_2_rank_1.pt").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 files, .* optim_world_size_2_rank_1\.pt"):
        check_ranks(tmp_path, 2)
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError) as refused:
        check_ranks(tmp_path, 2)
    assert "--init" not in str(refused.value)  # there is no folder to name
    with pytest.raises(CheckpointError, match="wrote no weights"):
        publish(run, 2, BASE_SETTINGS)


@pytest.mark.slow
def test_verls_adapters_are_written_as_the_local_engines_are(tmp_path):
    import torch
    from safetensors.torch import load_file

    from lfpc.policies.bases import base_of
    from lfpc.training.resume import keep_init_files
    from lfpc.training.verl.checkpoints import publish

    run = TrainConfig(init=MINIATURE, out=tmp_path, lora=LoraConfig(rank=2, alpha=6))
    keep_init_files(run)
    actor = tmp_path / "verl" / "global_step_1" / "actor"
    actor.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="verl wrote no adapters there"):
        publish(run, 1, BASE_SETTINGS)
    layer = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
    weights = {
        f"{layer}.{part}.default.weight": torch.full(size, float(n))
        for n, (part, size) in enumerate({"lora_A": (2, 96), "lora_B": (96, 2)}.items())
    }
    torch.save(weights, actor / "model_world_size_1_rank_0.pt")
    folder = publish(run, 1, BASE_SETTINGS)
    assert base_of(folder) == MINIATURE
    assert read_settings(folder) == BASE_SETTINGS
    found = load_file(folder / "adapter_model.safetensors")
    assert found.keys() == {f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"}
    assert all(torch.equal(found[n.replace(".default", "")], w) for n, w in weights.items())
    adapter = json.loads((folder / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (2, 6)
    assert adapter["target_modules"] == [layer.removeprefix("base_model.model.")]
    assert (folder / "tokenizer.json").is_file()


@pytest.mark.slow
def test_a_start_deletes_what_a_killed_run_left_and_nothing_to_resume_from(tmp_path):
    from lfpc.training.verl.checkpoints import remove_leftovers

    for step in (1, 2, 3):
        (tmp_path / "verl" / f"global_step_{step}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"step-00000{step}").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".best.0a1b.part").mkdir()
    remove_leftovers(tmp_path, 2)
    kept = sorted(path.name for path in tmp_path.glob("*/*"))
    assert kept == [*(f"global_step_{n}" for n in (1, 2, 3)), "step-000002", "step-000003"]
    (tmp_path / "verl" / "latest_checkpointed_iteration.txt").write_text("2")
    remove_leftovers(tmp_path, 1)  # killed while verl wrote step 3
    assert [path.name for path in (tmp_path / "verl").glob("global*")] == ["global_step_2"]


@pytest.mark.slow
def test_a_run_killed_between_verls_checkpoint_and_ours_is_whole_when_it_is_called_again(
    sample, tmp_path, monkeypatch
):
    from lfpc.training.state import settings_of_run
    from lfpc.training.verl import launch

    monkeypatch.setattr(
        launch, "check_versions", lambda needed: None
    )  # nothing of verl is asked: its last step is on disk
    data = write_samples([sample(budget=16)], tmp_path / "data").parent
    run = replace(
        preset("stage1"),
        data=data,
        init=MINIATURE,
        out=tmp_path / "run",
        steps=2,
        original_budget=256,
        crop=CropRules(max_tokens=25),
    )
    written = run.out / "verl" / "global_step_2" / "actor" / "huggingface"
    written.mkdir(parents=True)
    (written / "model.safetensors").write_bytes(b"weights")
    (run.out / "verl" / "latest_checkpointed_iteration.txt").write_text("2")
    folder = launch.train(run, Cluster())
    assert (folder.name, (folder / "model.safetensors").read_bytes()) == ("step-000002", b"weights")
    assert read_settings(folder) == settings_of_run(run, read_samples(data))


def test_what_verls_processes_read_does_not_depend_on_where_they_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = {name: Path("runs") / name for name in ("data", "validation", "init", "out")}
    run = settings(replace(preset("stage1"), **folders), Cluster())["+lfpc"]["train"]
    assert {name: run[name] for name in folders} == {
        name: str(tmp_path / folder) for name, folder in folders.items()
    }


@pytest.mark.slow
def test_a_dry_run_shows_settings_and_estimate_and_needs_no_verl(capsys):
    from lfpc.cli import main

    words = (
        "train stage1 --engine verl --hardware gpu1 --dry-run --data no --out no --reward.tool "
        "0.4 --cluster.workers 3"
    )
    assert main(words.split()) == 0
    shown = capsys.readouterr().out
    assert "actor_rollout_ref.rollout.agent.num_workers" in shown
    assert "estimate for 3.8 billion parameters on 1 x 1 GPUs" in shown
    assert "  fits" in shown
    assert main([*words.split(), "--cluster.gpu-gib", "8"]) == 1
    shown = capsys.readouterr()
    assert "does not fit: training: " in shown.out
    assert shown.err == (
        "lfpc: the run does not fit; the estimate names options that lower its memory\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train stage1 --hardware gpu1", "needs --engine verl"),
        ("train stage1 --engine verl --hardware nope", "unknown hardware 'nope'"),
        (
            "train stage1 --engine verl --hardware=gpu1 --cluster.workers 0 --dry-run",
            "workers must be at least 1",
        ),
    ],
)
def test_wrong_words_end_in_a_sentence(words, sentence, capsys):
    from lfpc.cli import main

    try:
        code = main(words.split())
    except SystemExit as leaving:
        code = leaving.code
    assert code in (1, 2)
    assert sentence in capsys.readouterr().err
