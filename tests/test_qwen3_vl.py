"""Qwen3-VL's architecture in the local engine: reading, sampling, training, commands."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

import lfpc
from lfpc import cli
from lfpc.episode import Episode
from lfpc.errors import ConfigError
from lfpc.images import CropRules, global_view, open_picture
from lfpc.policies.qwen import attention
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.qwen.language import read
from lfpc.policies.qwen.recompute import recomputed
from lfpc.policies.qwen.sampling import log_softmax
from lfpc.policies.qwen.varlen import speed_up_vision
from lfpc.policies.sampling import Sampling
from lfpc.policies.settings import read_settings
from lfpc.policies.transformers import TransformersPolicy, row_features
from lfpc.protocols import PROTOCOLS
from lfpc.rewards import RewardTerms
from lfpc.samples import Sample, write_samples
from lfpc.storage.runs import RunFolder
from lfpc.training.config import LoraConfig, TrainConfig
from lfpc.training.local import train

pytestmark = pytest.mark.slow

PROTOCOL = PROTOCOLS["qwen3_vl"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A checkpoint, and a samples folder with a picture of 12 megapixels."""
    folder = tmp_path_factory.mktemp("qwen3")
    save_checkpoint(
        tiny.qwen3_model(), tiny.tokenizer(), folder / "init", processor=tiny.qwen3_pictures()
    )
    data = folder / "data"
    data.mkdir()
    samples = []
    for number, size in enumerate([(4000, 3000), (300, 200), (640, 480)]):
        small = tiny.picture(number, size[0] // 10, size[1] // 10)
        small.resize(size, Image.Resampling.NEAREST).save(data / f"{number}.png", compress_level=1)
        samples.append(
            Sample(
                id=f"s{number}",
                image=data / f"{number}.png",
                question="What mark is on the red kite?",
                answer="7",
                boxes=((tiny.BOX,),),
                budget=64,
            )
        )
    write_samples(samples, data)
    return folder


def fitted() -> torch.nn.Module:
    model = tiny.qwen3_model()
    model.normalised = load_normalisation()
    speed_up_vision(model)
    return model


def load_normalisation():
    from lfpc.policies.qwen.vision import Normalisation

    return Normalisation((0.5,) * 3, (0.5,) * 3)


def contexts():
    """Three rollouts of one question and one of another; lengths and picture sizes differ."""
    first = tiny.view(0, 128, 96)
    question = "What mark is on the red kite?"
    return [
        tiny.context(question, first),
        tiny.context(question, first, tiny.crop_turn(2, width=64, height=96)),
        tiny.context(
            question,
            first,
            tiny.crop_turn(3, closed=True, width=96, height=64),
            tiny.crop_turn(4, width=64, height=64),
        ),
        tiny.context(
            "Where is the blue box?", tiny.view(1, 96, 128), tiny.crop_turn(5, width=64, height=64)
        ),
    ]


def batch(rows):
    """What transformers wants for one batch: left-padded ids, pixels of every occurrence."""
    longest = max(len(row.ids) for row in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for n, row in enumerate(rows):
        tokens[n, longest - len(row.ids) :] = torch.from_numpy(row.ids)
        mask[n, longest - len(row.ids) :] = 1
    pictures = tiny.qwen3_pictures()(
        [view.image for row in rows for view in row.views], do_resize=False, return_tensors="pt"
    )
    kinds = (tokens == tiny.tokenizer().get_vocab()["<|image_pad|>"]).int()
    return {"input_ids": tokens, "attention_mask": mask, "mm_token_type_ids": kinds, **pictures}


@pytest.mark.parametrize("share", [True, False])
def test_logits_and_gradients_equal_an_ordinary_call_of_the_model(share):
    plain, ours = tiny.qwen3_model(), fitted()
    policy = TransformersPolicy(ours, tiny.tokenizer(), PROTOCOL, share=share)
    rows = [policy.encoder.context(context) for context in contexts()]
    logits = plain(**batch(rows)).logits
    expected = [
        logits[n, logits.shape[1] - (len(row.ids) - row.prefix) :] for n, row in enumerate(rows)
    ]
    got = read(ours, rows, row_features(policy.views, rows), prefixes={} if share else None)
    actual = [
        ours.lm_head(got.hidden[n, got.hidden.shape[1] - (len(row.ids) - row.prefix) :])
        for n, row in enumerate(rows)
    ]
    for a, b in zip(actual, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    for some in (expected, actual):
        sum(torch.log_softmax(part, -1)[:, 5].mean() for part in some).backward()
    for (name, a), b in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert a.grad.abs().max() > 0, name
        close = torch.allclose(a.grad, b.grad, atol=1e-4 * max(1.0, float(a.grad.abs().max())))
        assert close, name


def test_checkpointing_and_attention_in_pieces_change_no_gradient(monkeypatch):
    found = []
    for saving in (False, True):
        monkeypatch.setattr(attention, "MASK_ELEMENTS", 700 if saving else 2**26)
        model = fitted()
        policy = TransformersPolicy(model, tiny.tokenizer(), PROTOCOL)
        rows = [policy.encoder.context(context) for context in contexts()]
        with recomputed(model) if saving else nullcontext():
            hidden = read(model, rows, row_features(policy.views, rows), prefixes={}).hidden
            logits = model.lm_head(hidden[:, -3:])
            torch.log_softmax(logits, -1)[..., 5].mean().backward()
        language = model.model.language_model.config
        assert (language._attn_implementation == attention.PIECEWISE) == saving
        found.append((logits.detach(), {n: w.grad for n, w in model.named_parameters()}))
    (a, plain), (b, saved) = found
    assert torch.allclose(a, b, atol=1e-4)
    for name, grad in plain.items():
        assert grad.abs().max() > 0, name
        close = torch.allclose(grad, saved[name], atol=1e-4 * max(1.0, float(grad.abs().max())))
        assert close, name


def test_sampled_log_probabilities_are_those_of_the_whole_sequence():
    model = fitted()
    policy = TransformersPolicy(
        model,
        tiny.tokenizer(),
        PROTOCOL,
        sampling=Sampling(temperature=0.7, max_new_tokens=9),
        batch_size=3,
    )
    asked = [contexts()[n] for n in (0, 0, 1, 2, 3)]
    for context, reply in zip(asked, policy.reply(asked), strict=True):
        whole = policy.encoder.episode(context, reply)
        start, end = whole.replies[-1]
        with torch.no_grad():
            logits = model(**batch([whole])).logits[0, start - 1 : end - 1]
        expected = log_softmax(logits, temperature=0.7, banned=policy.writer.banned)
        expected = expected.gather(1, torch.tensor(reply.token_ids)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(reply.logprobs), expected, atol=1e-4)


def test_a_protocol_of_another_token_size_is_named():
    with pytest.raises(ConfigError, match=r"qwen2_5_vl makes .* 28 pixels, .* 32 .*qwen3_vl"):
        TransformersPolicy(fitted(), tiny.tokenizer(), PROTOCOLS["qwen2_5_vl"])
    with pytest.raises(ConfigError, match=r"qwen3_vl makes .* 32 pixels, .* 28 .*qwen2_5_vl"):
        TransformersPolicy(tiny.model(), tiny.tokenizer(), PROTOCOL)


def early_tokens(episode: Episode) -> RewardTerms:
    """A reward that differs between rollouts of a random model: low token ids are good."""
    ids = episode.turns[0].reply.token_ids
    return RewardTerms(accuracy=float(np.mean([i < 400 for i in ids])))


def config(base: Path, out: Path, **changes) -> TrainConfig:
    small = TrainConfig(
        data=base / "data",
        init=base / "init",
        out=out,
        protocol="qwen3_vl",
        crop=CropRules(factor=32, min_tokens=64, max_tokens=80),
        prompts_per_step=2,
        group_size=3,
        steps=2,
        save_every=1,
        max_turns=2,
        max_new_tokens=4,
        learning_rate=1e-3,
        device="cpu",
    )
    return replace(small, **changes)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4)])
def test_training_moves_the_weights_resumes_and_leaves_a_checkpoint(
    base, tmp_path, lora, monkeypatch
):
    if lora is not None:
        pytest.importorskip("peft")
    whole = train(config(base, tmp_path / "whole", lora=lora), progress=False, reward=early_tokens)
    parts = tiny.train_in_two_parts(
        config(base, tmp_path / "parts", lora=lora), early_tokens, monkeypatch
    )
    assert [row["step"] for row in RunFolder(tmp_path / "whole").metrics()] == [1, 2]
    assert all(row["logprob_gap"] < 1e-4 for row in RunFolder(tmp_path / "whole").metrics())

    def weights(folder):
        if lora is not None:
            return load_checkpoint(folder)[0].state_dict()  # adapters alone, which it merges
        return AutoModelForImageTextToText.from_pretrained(folder).state_dict()

    before, after, resumed = (weights(folder) for folder in (base / "init", whole, parts))
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, resumed[name]) for name, weight in after.items())
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("language_model.layers" in name for name in moved)
    assert any("visual" in name for name in moved) == (lora is None)
    settings = read_settings(whole)
    assert settings is not None
    assert (settings.protocol, settings.crop) == (
        "qwen3_vl",
        CropRules(factor=32, min_tokens=64, max_tokens=80),
    )
    assert load_checkpoint(whole)[0].normalised == load_normalisation()


def test_commands_take_the_protocol_and_token_size_from_the_checkpoint(base, tmp_path, capsys):
    init, data = str(base / "init"), str(base / "data")
    options = ["--checkpoint", init, "--max-new-tokens", "4"]
    run = tmp_path / "run"
    code = cli.main(["eval", data, *options, "--out", str(run), "--probes", "own", "noise"])
    assert code == 0, capsys.readouterr()
    records = lfpc.read_records(lfpc.open_run(run / "chosen" / "own")).values()
    assert [record.global_tokens for record in records] == [64, 64, 64]
    asked = ["ask", str(base / "data" / "0.png"), "What mark?", "--budget", "80"]
    assert cli.main([*asked, *options, "--out", str(tmp_path / "asked")]) == 0, capsys.readouterr()
    selected = tmp_path / "selected"
    code = cli.main(["select", data, *options, "--out", str(selected), "--ladder", "256", "64"])
    assert code == 0, capsys.readouterr()
    assert {sample.budget for sample in lfpc.read_samples(selected)} <= {256, 64}
    trained = tmp_path / "trained"
    words = ["--data", data, "--init", init, "--out", str(trained), "--steps", "1"]
    small = ["--prompts-per-step", "1", "--group-size", "2", "--max-new-tokens", "4"]
    code = cli.main(["train", "stage1", *words, *small, "--device", "cpu"])
    assert code == 0, capsys.readouterr()
    settings = read_settings(trained / "checkpoints" / "step-000001")
    assert settings is not None
    assert (settings.protocol, settings.crop) == ("qwen3_vl", PROTOCOL.crop)


@pytest.mark.long
def test_what_a_picture_shows_is_learnt_and_holds_for_new_pictures(tmp_path):
    """A bandit that is right half of the time without the picture: the reward wants an even token
    for red and an odd one for blue.
    """
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    samples = []
    for number in range(24):
        answer = ("red", "blue")[number % 2]
        colour = {"red": (220, 30, 30), "blue": (30, 30, 220)}[answer]
        pixels = (np.array(colour) + rng.integers(-25, 26, (256, 256, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(data / f"{number}.png")
        samples.append(
            Sample(
                id=f"s{number}",
                image=data / f"{number}.png",
                question="What is in the picture?",
                answer=answer,
                budget=64,
            )
        )
    write_samples(samples[:16], data)
    save_checkpoint(
        tiny.qwen3_model(), tiny.tokenizer(), tmp_path / "init", processor=tiny.qwen3_pictures()
    )

    def right(token: int, answer: str) -> bool:
        return token % 2 == {"red": 0, "blue": 1}[answer]

    def reward(episode: Episode) -> RewardTerms:
        token = episode.turns[0].reply.token_ids[0]
        return RewardTerms(accuracy=float(right(token, episode.sample.answer)))

    bandit = config(
        tmp_path,
        tmp_path / "run",
        prompts_per_step=8,
        group_size=16,
        steps=45,
        save_every=100,
        max_turns=1,
        max_new_tokens=1,
        learning_rate=3e-3,
    )
    folder = train(bandit, progress=False, reward=reward)
    rewards = [row["reward"] for row in RunFolder(tmp_path / "run").metrics()]
    assert np.mean(rewards[:3]) < 0.6
    assert np.mean(rewards[-5:]) > 0.85
    model, tokenizer = load_checkpoint(folder)
    policy = TransformersPolicy(model, tokenizer, PROTOCOL, sampling=Sampling(max_new_tokens=1))
    new = samples[16:]
    replies = policy.reply(
        [
            tiny.context(one.question, global_view(open_picture(one.image), 64, factor=32))
            for one in new
        ]
    )
    found = [right(reply.token_ids[0], one.answer) for reply, one in zip(replies, new, strict=True)]
    assert np.mean(found) > 0.85
