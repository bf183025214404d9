"""Layouts of checkpoint folders that people have: all are read like the published one."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import layout
import pytest
import tiny
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

from lfpc.errors import CheckpointError
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.qwen.encode import Encoder
from lfpc.policies.qwen.folder import normalisation, picture_template
from lfpc.policies.qwen.vision import CLIP, Normalisation
from lfpc.protocols import PROTOCOLS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected(published) -> Callable[[str], "tuple[list[int], Normalisation]"]:
    """What the published folder of a family reads as."""
    return cache(lambda family: read(published(family), family))


def without_template(folder: Path) -> None:
    """No template in the tokenizer's configuration."""
    layout.edit(folder / "tokenizer_config.json", chat_template=None)


def only_in_the_tokenizer(folder: Path) -> None:
    (folder / "chat_template.json").unlink()


def only_in_the_processor(folder: Path) -> None:
    without_template(folder)


def text_only_in_the_tokenizer(folder: Path) -> None:
    layout.edit(folder / "tokenizer_config.json", chat_template=layout.template("qwen2_5"))


def as_jinja(folder: Path) -> None:
    found = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    (folder / "chat_template.json").unlink()
    text_only_in_the_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(found)


def in_the_processors_configuration(folder: Path) -> None:
    found = json.loads((folder / "chat_template.json").read_text())
    (folder / "chat_template.json").unlink()
    text_only_in_the_tokenizer(folder)
    layout.write_json(folder / "processor_config.json", found)


def without_tokenizer_json(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def saved_by_transformers_5(folder: Path) -> None:
    """One processor_config.json, a template beside it, and the new names in config and weights."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pictures = AutoImageProcessor.from_pretrained(folder).to_dict()
    model = AutoModelForImageTextToText.from_pretrained(folder)
    for file in folder.iterdir():
        file.unlink()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    layout.write_json(folder / "processor_config.json", {"image_processor": pictures})


VARIANTS = (
    only_in_the_tokenizer,
    only_in_the_processor,
    text_only_in_the_tokenizer,
    as_jinja,
    in_the_processors_configuration,
    without_tokenizer_json,
    saved_by_transformers_5,
)


CASES = [("qwen2_5_vl", change) for change in VARIANTS] + [("qwen3_vl", saved_by_transformers_5)]


def read(folder: Path, family: str) -> tuple[list[int], Normalisation]:
    """Token ids of a conversation with a crop, and the normalisation."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = picture_template(folder) or tokenizer.chat_template
    side = PROTOCOLS[family].factor
    first = tiny.view(0, 10 * side, 8 * side)
    asked = tiny.context("What is it?", first, tiny.crop_turn(1, width=8 * side, height=8 * side))
    row = Encoder(tokenizer, PROTOCOLS[family]).context(asked)
    return row.ids.tolist(), normalisation(folder)


@pytest.mark.parametrize(("family", "change"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_every_layout_is_read_like_the_published_one(family, change, expected, published, tmp_path):
    folder = layout.variant(published(family), tmp_path / "variant", change)
    assert read(folder, family) == expected(family)


def test_the_normalisation_is_the_checkpoints_own(expected):
    assert expected("qwen3_vl")[1] == Normalisation((0.5,) * 3, (0.5,) * 3)
    assert expected("qwen2_5_vl")[1] == CLIP


@pytest.mark.parametrize(
    ("family", "change"),
    [("qwen2_5_vl", text_only_in_the_tokenizer), ("qwen3_vl", saved_by_transformers_5)],
)
def test_a_saved_checkpoint_is_read_like_its_source(family, change, expected, published, tmp_path):
    folder = layout.variant(published(family), tmp_path / "variant", change)
    model, tokenizer = load_checkpoint(folder)
    saved = save_checkpoint(model, tokenizer, tmp_path / "saved", source=folder)
    assert read(saved, family) == expected(family)
    assert AutoTokenizer.from_pretrained(saved).chat_template == layout.template(family)
    again, _ = load_checkpoint(saved)
    assert again.normalised == model.normalised
    assert again.generation_config.eos_token_id == [151645, 151643]


def test_a_template_without_pictures_is_named(published, tmp_path):
    def change(folder: Path) -> None:
        text_only_in_the_tokenizer(folder)
        (folder / "chat_template.json").unlink()

    folder = layout.variant(published("qwen2_5_vl"), tmp_path / "variant", change)
    with pytest.raises(CheckpointError, match=r"chat template fails .*chat_template\.json"):
        read(folder, "qwen2_5_vl")


def test_a_broken_template_and_a_missing_processor_are_named(tmp_path):
    (tmp_path / "chat_template.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"chat_template\.json: not a chat template"):
        picture_template(tmp_path)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        normalisation(tmp_path)
