"""What a checkpoint says about how to ask it, and what the command line makes of that."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lfpc.cli.evaluating import Eval
from lfpc.cli.serving import Serve
from lfpc.errors import CheckpointError
from lfpc.evaluation.plan import samples_task
from lfpc.images import CropRules
from lfpc.mini.folders import BASE_SETTINGS
from lfpc.policies.settings import (
    SETTINGS_FILE,
    CheckpointSettings,
    checkpoint_settings,
    local_folder,
    read_settings,
    write_settings,
)
from lfpc.samples import write_samples

MINIATURE = Path(__file__).parents[1] / "src" / "lfpc" / "mini" / "checkpoint"
TRAINED = CheckpointSettings(
    protocol="qwen2_5_vl",
    crop=CropRules(min_tokens=4, max_tokens=9),
    max_turns=2,
    max_new_tokens=30,
    first_view="selected",
    small_budget=36,
    full_budget=144,
)


@pytest.fixture
def checkpoint(tmp_path):
    """A folder that holds the settings alone."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_settings(TRAINED, folder)
    return folder


def evaluation(checkpoint, **options):
    """`lfpc eval` with these options."""
    return Eval(folder=Path("data"), out=Path("out"), checkpoint=checkpoint, **options)


def test_settings_come_back_as_they_were_written(checkpoint):
    assert read_settings(checkpoint) == TRAINED
    assert json.loads((checkpoint / SETTINGS_FILE).read_text())["format"] == 1


def test_a_checkpoint_from_elsewhere_has_no_settings(tmp_path):
    assert read_settings(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not the settings of a checkpoint"),
        ("[]", r"\[\] should be an object"),
        ('{"format": 2}', "format 2 is unknown; this version reads 1"),
        ('{"max_turn": 2}', "unknown key 'max_turn'; did you mean 'max_turns'"),
        ('{"max_turns": 0}', "max_turns must be at least 1, got 0"),
        ('{"protocol": "gpt"}', "protocol must be one of"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path, text, sentence):
    (tmp_path / SETTINGS_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=sentence) as error:
        read_settings(tmp_path)
    assert str(tmp_path / SETTINGS_FILE) in str(error.value)


def test_the_base_checkpoint_carries_the_settings_of_the_miniature():
    assert read_settings(MINIATURE) == BASE_SETTINGS
    assert (BASE_SETTINGS.max_turns, BASE_SETTINGS.max_new_tokens) == (3, 24)
    assert (BASE_SETTINGS.budget, BASE_SETTINGS.full_budget) == (25, 256)


def test_a_checkpoint_trained_at_the_original_resolution_is_asked_there():
    assert TRAINED.budget == 36
    assert replace(TRAINED, first_view="original", small_budget=None).budget == 144


def test_a_checkpoint_is_asked_as_it_was_trained(checkpoint):
    config, _ = evaluation(checkpoint).asked()
    assert (config.protocol, config.max_turns, config.max_new_tokens) == ("qwen2_5_vl", 2, 30)
    assert config.crop_rules == TRAINED.crop


def test_an_option_that_is_given_wins_over_the_checkpoint(checkpoint):
    config, _ = evaluation(checkpoint, max_turns=5, max_new_tokens=99, crop_tokens=(2, 7)).asked()
    assert (config.max_turns, config.max_new_tokens) == (5, 99)
    assert config.crop_rules == CropRules(min_tokens=2, max_tokens=7)


def test_another_protocol_brings_its_own_crops(checkpoint):
    config, _ = evaluation(checkpoint, protocol="qwen3_vl").asked()
    assert config.crop is None
    assert config.crop_rules.factor == 32
    assert config.max_turns == 2


def test_a_model_without_settings_is_asked_with_the_defaults(tmp_path):
    local, _ = evaluation(tmp_path).asked()
    served, _ = evaluation(None, base_url="http://127.0.0.1:1/v1", model="m").asked()
    for config in (local, served):
        assert (config.protocol, config.max_turns, config.max_new_tokens) == ("qwen2_5_vl", 6, 512)
        assert config.crop is None


@pytest.mark.slow
def test_the_base_checkpoint_is_served_as_the_miniature_is_trained():
    name, model = Serve()._chosen()
    config, _ = model.asked()
    assert name == "lfpc-mini"
    assert (config.max_turns, config.max_new_tokens) == (3, 24)
    assert config.crop == BASE_SETTINGS.crop
    assert model.defaults().budget == 25


def test_samples_without_budgets_are_seen_at_the_checkpoints(checkpoint, sample, tmp_path):
    def budget(folder, **fields):
        write_samples([sample(**fields)], tmp_path / "data")
        return evaluation(folder)._budget([samples_task(tmp_path / "data")])

    assert budget(checkpoint, budget=None) == 36
    assert budget(checkpoint, budget=16) is None  # each sample's own
    assert budget(tmp_path, budget=None) is None


def test_a_checkpoint_without_settings_has_the_protocol_of_its_architecture(tmp_path) -> None:
    for architecture, protocol in (
        ("qwen2_5_vl", "qwen2_5_vl"),
        ("qwen3_vl", "qwen3_vl"),
        ("qwen3_vl_moe", "qwen3_vl"),
        ("llava", "qwen2_5_vl"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": architecture}))
        assert checkpoint_settings(tmp_path) == CheckpointSettings(protocol=protocol)
    write_settings(CheckpointSettings(protocol="ergo"), tmp_path)
    assert checkpoint_settings(tmp_path).protocol == "ergo"


def test_a_hub_id_is_its_cached_snapshot_and_otherwise_the_download_is_named(
    tmp_path, monkeypatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    name = Path("Some/Model-3B")
    with pytest.raises(CheckpointError, match="it with `hf download Some/Model-3B`"):
        local_folder(name)
    repository = tmp_path / "cache" / "models--Some--Model-3B"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    assert local_folder(name) == snapshot
    name.mkdir(parents=True)
    assert local_folder(name) == name, "a folder goes before the cache"
    assert local_folder(tmp_path / "nothing") == tmp_path / "nothing"
