"""The model card of a checkpoint, from the files that training and evaluation leave."""

import json

import numpy
import pytest
from reports import made_up_record, write_run
from safetensors.numpy import save_file

from lfpc import cli
from lfpc.policies.identity import checkpoint_identity
from lfpc.storage.runs import Kind


@pytest.fixture
def checkpoint(tmp_path):
    """The folder of a checkpoint within a training run."""
    config = {
        "init": "/home/ada/models/7b",
        "data": "/home/ada/data/hard",
        "steps": 80,
        "lora": None,
    }
    reward = {"accuracy": 1.0, "tool": 0.5}
    write_run(tmp_path / "stage2", [], Kind.TRAIN, **config, reward=reward)
    folder = tmp_path / "stage2" / "checkpoints" / "step-000080"
    folder.mkdir(parents=True)
    (folder / "lfpc.json").write_text(json.dumps({"format": 1, "protocol": "deepeyes"}))
    return folder


def evaluation(folder, probe, right):
    options = ("red", "blue")
    records = [
        made_up_record(f"q{i}", correct=float(one), tool=True, visual_tokens=1024, options=options)
        for i, one in enumerate(right)
    ]
    config = {"model": "/home/ada/stage2", "protocol": "deepeyes", "budget": 1024, "probe": probe}
    write_run(folder / "1024" / probe, records, Kind.EVALUATION, **config)


def test_a_card_holds_settings_results_and_the_verdict_and_no_path(tmp_path, checkpoint, capsys):
    evaluation(tmp_path / "vstar", "own", [1] * 90 + [0] * 10)
    evaluation(tmp_path / "vstar", "noise", [1] * 50 + [0] * 50)
    run = ["card", str(checkpoint), "--evaluations", str(tmp_path / "vstar")]
    assert cli.main(run) == 0
    card = (checkpoint / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    for row in (
        "# stage2, step-000080",
        "| base | models/7b |",
        "| data | data/hard |",
        "| steps | 80 |",
        "| reward | accuracy 1.0, tool 0.5 |",
        "| protocol | deepeyes |",
        "## Results: vstar",
        "| 1024 | 100 | 90.0 % [82.6, 94.5] | 50.0 % | +40.0 [",
        "* 1024: Uses its crops: noise costs 40.0 points [",
    ):
        assert row in card
    assert "/home" not in card
    assert "lora" not in card
    assert cli.main(run) == 1
    assert "README.md exists already; delete it or name another --out" in capsys.readouterr().err


def test_a_card_rejects_evaluations_of_other_weights(tmp_path, checkpoint, capsys):
    save_file({"w": numpy.ones(2)}, checkpoint / "model.safetensors")
    weights = checkpoint_identity(checkpoint)["weights"]
    for name, of in (("mine", weights), ("other", "0" * 32)):
        evaluation(tmp_path / name, "own", [1] * 4)
        file = tmp_path / name / "1024" / "own" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"inputs": {"weights": of}}))
    run = ["card", str(checkpoint), "--evaluations"]
    assert cli.main([*run, str(tmp_path / "mine"), str(tmp_path / "other")]) == 1
    assert (
        f"{tmp_path / 'other/1024'}: evaluates other weights than those of {checkpoint} (its model "
        f"was /home/ada/stage2)" in capsys.readouterr().err
    )
    assert not (checkpoint / "README.md").exists()
    assert cli.main([*run, str(tmp_path / "mine")]) == 0
    assert "Evaluated: `ada/stage2`.\n" in (checkpoint / "README.md").read_text()


def test_a_card_says_which_evaluations_do_not_know_their_weights(tmp_path, checkpoint):
    evaluation(tmp_path / "served", "own", [1] * 4)
    assert cli.main(["card", str(checkpoint), "--evaluations", str(tmp_path / "served")]) == 0
    card = (checkpoint / "README.md").read_text()
    assert "Evaluated: `ada/stage2` (by its name; the weights are not recorded).\n" in card


def test_a_card_needs_a_checkpoint_of_a_training(tmp_path, capsys):
    assert cli.main(["card", str(tmp_path)]) == 1
    assert "has no lfpc.json; name a checkpoint that lfpc train wrote" in capsys.readouterr().err


def test_a_checkpoint_outside_its_run_has_a_card_without_training(tmp_path):
    (tmp_path / "lfpc.json").write_text(json.dumps({"format": 1}))
    assert (
        cli.main(["card", str(tmp_path), "--title", "Mine", "--out", str(tmp_path / "c.md")]) == 0
    )
    card = (tmp_path / "c.md").read_text()
    assert "# Mine\n" in card
    assert "## Training" not in card
