"""The miniature's model, tokenizer and training: real classes, exact resume."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.slow

TINY = {"dense_steps": 2, "dialogue_steps": 2, "settle_steps": 2, "scenes": 6, "save_every": 1}


@pytest.fixture(scope="module")
def tokenizer():
    from lfpc.mini.model import build_tokenizer

    return build_tokenizer()


def test_any_text_survives_and_fixed_sentences_and_numbers_are_single_tokens(tokenizer):
    from lfpc.protocols.qwen2_5_vl import SYSTEM

    for text in (
        SYSTEM,
        "What mark is on the red kite?",
        "[12, 3, 145, 60] 007 \u20ac\n",
        "<answer>K</answer>",
    ):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    for text in (SYSTEM, "999", "10", "7", "<tool_call>", " kite"):
        assert len(tokenizer(text, add_special_tokens=False).input_ids) == 1


def test_near_numbers_start_with_near_embeddings(tokenizer):
    import torch

    from lfpc.mini.model import build_model

    table = build_model(tokenizer).get_input_embeddings().weight
    near, far = (table[tokenizer.convert_tokens_to_ids(text)] for text in ("101", "400"))
    origin = table[tokenizer.convert_tokens_to_ids("100")]
    assert (
        torch.cosine_similarity(origin, near, dim=0)
        > 0.9
        > 0.6
        > torch.cosine_similarity(origin, far, dim=0)
    )


def test_patches_equal_those_of_the_policy(tokenizer):
    import torch
    from PIL import Image

    from lfpc.mini.pictures import patches
    from lfpc.policies.qwen.vision import patchify

    pixels = np.random.default_rng(0).integers(0, 256, (2, 56, 84, 3), dtype=np.uint8)
    expected = torch.cat([patchify(Image.fromarray(picture))[0] for picture in pixels])
    assert torch.allclose(patches(pixels), expected, atol=1e-5)


def test_dense_targets_name_the_object_under_a_token_and_its_box():
    from lfpc.mini.dense import dense_targets
    from lfpc.mini.pictures import pool_scene
    from lfpc.mini.scenes import COLORS, MARKS

    scene = pool_scene(0)
    color, _, mark, group, box = dense_targets(scene, (0, 0, 448, 448), (16, 16))
    for number, thing in enumerate(scene.things):
        x = (thing.mark_box.x0 + thing.mark_box.x1) / 2
        y = (thing.mark_box.y0 + thing.mark_box.y1) / 2
        token = int(y * 16) * 16 + int(x * 16)
        assert color[token] == 1 + list(COLORS).index(thing.color)
        assert (mark[token], group[token]) == (MARKS.index(thing.mark), number)
        assert box[token, 4:] == pytest.approx([v * 16 for v in thing.box.corners], abs=1e-4)


def test_crop_dialogues_show_a_readable_global_picture():
    from lfpc.mini.dialogues import CropShares, DialogueRules, dialogue_rows
    from lfpc.mini.pictures import READABLE
    from lfpc.mini.scenes import EASY

    assert EASY.mark[0] >= READABLE
    rng = np.random.default_rng(0)
    rules = DialogueRules(scenes=40, shares=CropShares(hit=0.3, contradict=0.4))
    dialogues = [row for _ in range(16) for row in dialogue_rows(rng, {"dialogue": 1.0}, rules)[1]]
    sides = set()
    for row in dialogues:
        pictures = [piece for piece, _ in row.segments if not isinstance(piece, str)]
        assert len(pictures) == 2
        sides.add(len(pictures[0]))
        asks_relation = any(
            isinstance(piece, str) and "Is the" in piece for piece, _ in row.segments
        )
        assert len(pictures[0]) == 448 or asks_relation, (
            "a mark is asked about where it can be read, a relation can be read at every size"
        )
        assert [trained for _, trained in row.segments].count(True) == 1, (
            "only the answer is trained"
        )
    assert sides > {448}


def test_wide_dialogues_have_every_size_and_a_readable_global_picture():
    from lfpc.mini.dialogues import ROWS, CropShares, DialogueRules, crop_row
    from lfpc.mini.pictures import READABLE

    rules = DialogueRules(scenes=60, shares=CropShares(hit=1.0), wide=True)
    rng = np.random.default_rng(0)
    for tokens in ROWS:
        for _ in range(6):
            row = crop_row(rng, tokens, rules, relations=0.0)
            pictures = [piece for piece, _ in row.segments if not isinstance(piece, str)]
            question = next(
                piece for piece, _ in row.segments if isinstance(piece, str) and "mark is" in piece
            )
            (name,) = (name for name in row.known if f"the {name}?" in question)
            assert pictures[0].shape == (28 * tokens, 28 * tokens, 3)
            mark, box = row.known[name]
            assert mark >= 0
            assert box[3] - box[1] > READABLE


def test_stopped_pretraining_resumes_bit_identically(tmp_path):
    import torch

    from lfpc.mini.config import PretrainConfig
    from lfpc.mini.pretrain import pretrain
    from lfpc.policies.qwen.checkpoint import load_checkpoint

    whole = pretrain(PretrainConfig(out=tmp_path / "whole", **TINY), progress=False)

    class Stopped(Exception):
        pass

    import lfpc.mini.pretrain as module

    ordinary = module.dialogue_rows
    calls = []

    def stop_twice(*arguments, **options):
        calls.append(1)
        if len(calls) in (
            2,
            5,
        ):  # the second step of the dialogues; it again, both steps of the last phase
            raise Stopped
        return ordinary(*arguments, **options)

    config = PretrainConfig(out=tmp_path / "parts", dense_share=0.0, **TINY)
    straight = pretrain(
        PretrainConfig(out=tmp_path / "straight", dense_share=0.0, **TINY), progress=False
    )
    module.dialogue_rows = stop_twice
    try:
        for _ in range(2):
            with pytest.raises(Stopped):
                pretrain(config, progress=False)
    finally:
        module.dialogue_rows = ordinary
    parts = pretrain(config, progress=False)
    a, b = (load_checkpoint(folder)[0].state_dict() for folder in (straight, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert json.loads((whole / "config.json").read_text())["model_type"] == "qwen2_5_vl"


def test_new_run_may_start_from_a_checkpoint(tmp_path):
    import torch

    from lfpc.mini.config import PretrainConfig
    from lfpc.mini.folders import base_checkpoint
    from lfpc.mini.pretrain import pretrain
    from lfpc.policies.qwen.checkpoint import load_checkpoint

    none = {"dense_steps": 0, "dialogue_steps": 0, "settle_steps": 0}
    started = pretrain(PretrainConfig(out=tmp_path, init=base_checkpoint(), **none), progress=False)
    a, b = (load_checkpoint(folder)[0].state_dict() for folder in (base_checkpoint(), started))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_shipped_base_loads_with_the_ordinary_classes_and_is_small():
    from transformers import AutoModelForImageTextToText

    from lfpc.mini.folders import base_checkpoint
    from lfpc.policies.qwen.checkpoint import load_checkpoint
    from lfpc.protocols.qwen2_5_vl import SYSTEM

    folder = base_checkpoint()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 16 * 2**20
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    _, tokenizer = load_checkpoint(folder)
    assert len(tokenizer(SYSTEM, add_special_tokens=False).input_ids) == 1, (
        "the prompt changed; the base must be trained again"
    )
