"""Checkpoints in the published layout: what the local engine makes of them, held equal to
transformers' own processor and model.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import layout
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

import lfpc
from lfpc import cli
from lfpc.boxes import Box
from lfpc.dialogue import Context, Crop, Reply, Turn
from lfpc.episode import Episode
from lfpc.images import crop_view, global_view, shown_size, visual_tokens
from lfpc.policies.qwen import watching
from lfpc.policies.qwen.checkpoint import load_checkpoint
from lfpc.policies.qwen.language import read
from lfpc.policies.qwen.merging import merge
from lfpc.policies.transformers import TransformersPolicy, row_features
from lfpc.protocols import PROTOCOLS
from lfpc.rewards import RewardTerms
from lfpc.samples import Sample, write_samples
from lfpc.storage.runs import RunFolder
from lfpc.training.config import LoraConfig, TrainConfig

pytestmark = pytest.mark.slow

BOXES = (Box(0.1, 0.2, 0.3, 0.45), Box(0.55, 0.5, 0.62, 0.58))


class NoVideos:
    """In place of the video processor, which needs torchvision."""


def processor(folder: Path, family: str) -> Any:
    """Transformers' own processor, with the template of its folder."""
    kind = {"qwen2_5_vl": Qwen2_5_VLProcessor, "qwen3_vl": Qwen3VLProcessor}[family]
    made = object.__new__(kind)
    kind.check_argument_for_proper_class, check = (
        lambda self, name, argument: None,
        kind.check_argument_for_proper_class,
    )
    try:
        made.__init__(
            AutoImageProcessor.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
            NoVideos(),
            chat_template=layout.template(family),
        )
    finally:
        kind.check_argument_for_proper_class = check
    return made


def context(family: str, tokenizer: Any, crops: int) -> Context:
    """A conversation about a picture with as many crops, at the protocol's own sizes."""
    protocol = PROTOCOLS[family]
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (620, 900, 3), dtype=np.uint8)
    )
    first = global_view(picture, 100, factor=protocol.factor)
    turns = []
    for box in BOXES[:crops]:
        text = protocol.write_call(box, first)
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        turns.append(Turn(Reply(text, ids, (-1.0,) * len(ids)), Crop(box), None))
        turns[-1] = Turn(turns[-1].reply, turns[-1].action, crop_view(picture, box, protocol.crop))
    return Context("What is it? naïve 颜色", ("red", "blue"), first, tuple(turns))


def conversation(family: str, asked: Context) -> tuple[list[dict[str, Any]], list[Image.Image]]:
    chat, images = [], []
    for message in PROTOCOLS[family].messages(asked):
        parts = []
        for part in message.parts:
            if isinstance(part, str):
                parts.append({"type": "text", "text": part})
            else:
                parts.append({"type": "image"})
                images.append(part.image)
        chat.append({"role": message.role, "content": parts})
    return chat, images


@pytest.mark.parametrize("family", layout.FAMILIES)
def test_ids_grids_positions_and_log_probabilities_are_transformers(family, published):
    folder = published(family)
    model, tokenizer = load_checkpoint(folder)
    policy = TransformersPolicy(model, tokenizer, PROTOCOLS[family])
    theirs = processor(folder, family)
    plain = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    for crops in (0, 2):
        agree(policy, plain, theirs, context(family, tokenizer, crops), family)


def agree(policy: Any, plain: Any, theirs: Any, asked: Context, family: str) -> None:
    """Ids, grids, positions and log-probabilities of a conversation are those of transformers."""
    model = policy.model
    chat, images = conversation(family, asked)
    text = theirs.apply_chat_template(
        chat,
        tokenize=False,
        add_generation_prompt=True,
        tools=list(PROTOCOLS[family].native_tools) or None,
    )
    inputs = theirs(text=[text], images=images, return_tensors="pt")
    row = policy.encoder.context(asked)
    assert row.ids.tolist() == inputs["input_ids"][0].tolist()
    side = model.model.visual.patch_size
    assert [[1, view.size[1] // side, view.size[0] // side] for view in row.views] == inputs[
        "image_grid_thw"
    ].tolist()
    kinds = inputs["mm_token_type_ids"]
    positions, _ = plain.model.get_rope_index(
        inputs["input_ids"], kinds, image_grid_thw=inputs["image_grid_thw"]
    )
    assert np.array_equal(row.positions, positions[:, 0].numpy())
    with torch.no_grad():
        expected = plain(**inputs).logits[0, row.prefix :].log_softmax(-1)
        got = read(model, [row], row_features(policy.views, [row]), prefixes={})
        ours = model.lm_head(got.hidden[0]).log_softmax(-1)
    assert (ours - expected).abs().max() < 1e-4
    assert expected.std() > 0.1


@pytest.mark.parametrize("queries", [512, 5])
@pytest.mark.parametrize("family", layout.FAMILIES)
def test_attention_to_the_first_view_is_transformers_eager(family, queries, published, monkeypatch):
    monkeypatch.setattr(watching, "QUERIES", queries)
    folder = published(family)
    model, tokenizer = load_checkpoint(folder)
    policy = TransformersPolicy(model, tokenizer, PROTOCOLS[family])
    usual = model.model.language_model.config._attn_implementation
    theirs = processor(folder, family)
    plain = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    wide = context(family, tokenizer, 0)
    side = PROTOCOLS[family].factor
    narrow = replace(wide, question="Where?", options=(), first_view=tiny.view(3, side, 66 * side))
    layers = [policy.depth, 1]
    found = policy.view_attention([wide, narrow], layers)
    for asked, one in zip([wide, narrow], found, strict=True):
        chat, images = conversation(family, asked)
        text = theirs.apply_chat_template(
            chat,
            tokenize=False,
            add_generation_prompt=True,
            tools=list(PROTOCOLS[family].native_tools) or None,
        )
        inputs = theirs(text=[text + "<answer>"], images=images, return_tensors="pt")
        start = len(policy.encoder.context(asked).ids)
        picture = inputs["input_ids"][0] == model.config.image_token_id
        first = max(int(picture.nonzero()[-1]) + 1, start - queries)
        width, height = asked.first_view.size
        with torch.no_grad():
            weights = plain(**inputs, output_attentions=True).attentions
        for number, layer in enumerate(layers):
            heads = weights[layer - 1][0].mean(dim=0)[:, picture]
            shape = height // side, width // side
            expected = heads[first:start].mean(dim=0).reshape(shape).numpy()
            assert np.allclose(one.question[number], expected, atol=1e-6)
            assert np.allclose(one.answer[number], heads[-1].reshape(shape).numpy(), atol=1e-6)
            assert one.answer[number].std() > 1e-5
    assert model.model.language_model.config._attn_implementation == usual
    assert not any(layer.self_attn._forward_hooks for layer in model.model.language_model.layers)


def even_tokens(episode: Episode) -> RewardTerms:
    """A reward that differs between rollouts of a random model."""
    ids = episode.turns[0].reply.token_ids
    return RewardTerms(accuracy=float(np.mean([one % 2 == 0 for one in ids])))


@pytest.mark.parametrize("family", [pytest.param("qwen2_5_vl", marks=pytest.mark.long), "qwen3_vl"])
def test_evaluation_selection_and_training_of_a_published_folder(
    family, published, tmp_path, capsys, monkeypatch
):
    folder = published(family, tied=family == "qwen3_vl")  # untied: as the published 7B
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (8000, 6000), "teal").save(data / "48-megapixels.jpg")
    Image.new("RGB", (4000, 3000), "navy").save(data / "12-megapixels.jpg")
    samples = [
        Sample(id=file.stem, image=file, question="What is it?", answer="a wall", budget=256)
        for file in sorted(data.glob("*.jpg"))
    ]
    write_samples(samples, data)
    words = [str(data), "--checkpoint", str(folder), "--max-new-tokens", "4"]
    assert cli.main(["eval", *words, "--out", str(tmp_path / "run"), "--probes", "own"]) == 0
    records = lfpc.read_records(lfpc.open_run(tmp_path / "run" / "chosen" / "own")).values()
    side = PROTOCOLS[family].factor
    size = shown_size((4000, 3000), max_tokens=256, factor=side)
    expected = [visual_tokens(size, side)] * 2
    assert [record.global_tokens for record in records] == expected
    selected = tmp_path / "selected"
    ladder = ["--ladder", "256", "64"]
    assert cli.main(["select", *words, "--out", str(selected), *ladder]) == 0, capsys.readouterr()
    config = TrainConfig(
        data=data,
        init=folder,
        out=tmp_path / "trained",
        protocol=family,
        crop=PROTOCOLS[family].crop,
        prompts_per_step=2,
        group_size=2,
        steps=2,
        save_every=1,
        max_turns=2,
        max_new_tokens=4,
        learning_rate=1e-3,
        device="cpu",
        lora=LoraConfig(rank=2, alpha=4) if family == "qwen3_vl" else None,
    )
    last = tiny.train_in_two_parts(config, even_tokens, monkeypatch)
    rows = RunFolder(config.out).metrics()
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["grad_norm"] > 0 and row["logprob_gap"] < 1e-4 for row in rows)
    if config.lora is not None:
        last = merge(last, tmp_path / "merged")  # of adapters alone
    ours, tokenizer = load_checkpoint(last)
    assert tokenizer.chat_template == layout.template(family)
    plain = AutoModelForImageTextToText.from_pretrained(last, dtype=torch.float32)
    assert (plain.lm_head.weight is plain.get_input_embeddings().weight) == (family == "qwen3_vl")
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name]), name
