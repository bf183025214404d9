"""An architecture without a batched engine: its own processor and `generate`."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

import lfpc
from lfpc import cli
from lfpc.dialogue import Reply
from lfpc.errors import CheckpointError, ConfigError
from lfpc.policies.config import PolicyConfig
from lfpc.policies.generate import GeneratePolicy, load_any
from lfpc.policies.loading import load_policy
from lfpc.policies.sampling import Sampling
from lfpc.protocols import PROTOCOLS
from lfpc.samples import write_samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    """A tiny random LLaVA: 336 pixels shown as 4 x 4 patches of 84."""
    folder = tmp_path_factory.mktemp("llava") / "checkpoint"
    tokenizer = tiny.tokenizer()
    ids = tokenizer.get_vocab()
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=336,
        patch_size=84,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        eos_token_id=ids["<|im_end|>"],
        pad_token_id=ids["<|endoftext|>"],
        bos_token_id=None,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=ids["<|image_pad|>"]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
        tokenizer,
        patch_size=84,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<|image_pad|>",
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)
    return folder


def test_replies_equal_generate_on_the_processors_input(llava):
    model, processor = load_any(llava)
    protocol = replace(PROTOCOLS["qwen2_5_vl"], stop=())
    policy = GeneratePolicy(model, processor, protocol, sampling=Sampling(max_new_tokens=6))
    asked = tiny.context("What mark?", tiny.view(0), tiny.crop_turn(1))
    (reply,) = policy.reply([asked])
    system, user, call, seen = protocol.messages(asked)
    pad = "<|vision_start|><|image_pad|><|vision_end|>"
    text = (
        f"<|im_start|>system\n{system.parts[0]}<|im_end|>\n<|im_start|>user\n{pad}What mark?"
        f"<|im_end|>\n<|im_start|>assistant\n{call.parts[0]}<|im_end|>\n<|im_start|>user\n"
        f"<tool_response>{pad}</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert user.parts[1] == "What mark?"
    images = [view.image for view in asked.views]
    inputs = processor(text=[text], images=images, return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 2 * 16
    expected = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0]
    length = inputs["input_ids"].shape[1]
    assert reply.text == processor.tokenizer.decode(expected[length:], skip_special_tokens=True)
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == length
    assert (reply.logprobs, reply.truncated) == ((), True)
    assert len(seen.parts) == 3


def test_a_sampled_reply_depends_on_its_seed_and_not_on_its_neighbours(llava):
    policy = load_policy(PolicyConfig(model=str(llava), temperature=1.0, max_new_tokens=6))
    contexts = [replace(tiny.context("What mark?", tiny.view(n)), key=str(n)) for n in range(2)]
    both = [reply.text for reply in policy.reply(contexts)]
    assert [reply.text for reply in policy.reply(contexts[::-1])] == both[::-1]
    policy.reseed(5)
    assert [reply.text for reply in policy.reply(contexts)] != both


def test_eval_says_that_it_is_slower_and_training_that_it_cannot(llava, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    write_samples([tiny.sample(data, number) for number in range(2)], data)
    words = ["--checkpoint", str(llava), "--max-new-tokens", "4", "--out", str(tmp_path / "run")]
    assert cli.main(["eval", str(data), *words, "--probes", "own"]) == 0
    assert "llava has no batched engine here" in capsys.readouterr().err
    records = lfpc.read_records(lfpc.open_run(tmp_path / "run" / "chosen" / "own"))
    assert len(records) == 2
    words = ["--data", str(data), "--init", str(llava), "--out", str(tmp_path / "trained")]
    assert cli.main(["train", "stage1", *words]) == 1
    assert "architecture 'llava' is not supported" in capsys.readouterr().err


def test_the_gain_of_a_crop_is_read(llava, tmp_path, monkeypatch, capsys):
    policy = load_policy(PolicyConfig(model=str(llava)))
    asked = [tiny.context("What mark?", tiny.view(n), tiny.crop_turn(1)) for n in range(2)]
    found = policy.answer_logprobs(asked, [["7", "12 13"], ["8"]])
    assert [[one.tokens for one in some] for some in found] == [[1, 3], [1]]
    inputs = policy._inputs(policy.protocol.messages(asked[0]))
    ids = inputs["input_ids"][0].tolist()
    written = tiny.tokenizer()("<answer>12 13", add_special_tokens=False).input_ids
    with torch.no_grad():
        whole = policy.model(
            input_ids=torch.tensor([ids + written]), pixel_values=inputs["pixel_values"]
        ).logits[0]
    table = whole[-4:-1].log_softmax(-1)
    expected = sum(float(table[n, token]) for n, token in enumerate(written[-3:]))
    assert found[0][1].total == pytest.approx(expected, abs=1e-4)
    assert found[0][0].total != pytest.approx(found[1][0].total, abs=1e-4)

    data = tmp_path / "data"
    data.mkdir()
    write_samples([tiny.sample(data, number) for number in range(2)], data)
    call = tiny.crop_turn(0).reply
    with monkeypatch.context() as patched:
        patched.setattr(
            GeneratePolicy,
            "reply",
            lambda _, contexts: [
                Reply("<answer>7</answer>") if one.turns else call for one in contexts
            ],
        )
        words = ["--checkpoint", str(llava), "--probes", "own", "--out", str(tmp_path / "run")]
        assert cli.main(["eval", str(data), *words]) == 0, capsys.readouterr()
    words = ["probe", str(tmp_path / "run"), "--gain", "--probes", "noise"]
    assert cli.main(words) == 0, capsys.readouterr()
    assert "2 questions answered after a crop" in capsys.readouterr().out


def test_what_it_cannot_play_or_load_is_named(llava, tmp_path):
    with pytest.raises(ConfigError, match="through a server"):
        load_policy(PolicyConfig(model=str(llava), protocol="thyme"))
    (tmp_path / "config.json").write_text('{"model_type": "nothing_known"}')
    with pytest.raises(CheckpointError, match=r"cannot be loaded"):
        load_policy(PolicyConfig(model=str(tmp_path)))
