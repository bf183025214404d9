"""Rollouts by vLLM in this process, with a double in its place: what it is asked, what becomes of
its replies, and when it has which weights. `test_vllm_sampler.py` asks the real one."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from small_runs import config, early_tokens

from lfpc import cli
from lfpc.errors import ConfigError, RunError
from lfpc.images import visual_tokens
from lfpc.policies.qwen.adapters import adapted_layers, adapters, add_adapters, merged_weights
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL
from lfpc.samples import write_samples
from lfpc.storage.runs import RunFolder
from lfpc.training.config import LoraConfig, SamplerLimits, TrainConfig
from lfpc.training.faults import out_of_memory_explained
from lfpc.training.local import train
from lfpc.training.memory import sampler_share
from lfpc.training.sampler import UNASKED, VllmSampler, check_sampler
from lfpc.training.verl.shape import SHAPES

pytestmark = pytest.mark.slow
PAD = "<|image_pad|>"


class Double:
    """`vllm.LLM` as far as the sampler uses it. It replies by seed, with a word, then a stop."""

    last: "Double"

    def __init__(self, **arguments) -> None:
        Double.last = self
        self.arguments = arguments
        self.done: list[str] = []
        self.asked: list[tuple[dict, SimpleNamespace]] = []
        self.weights: dict[str, torch.Tensor] = {}
        self.llm_engine = SimpleNamespace(
            reset_encoder_cache=lambda: self.done.append("reset encoder")
        )
        self.model = SimpleNamespace(compute_logits=lambda states: states.clone())
        self.resized = 0

    def apply_model(self, change) -> None:
        if change.__name__ == "ban":
            change(self.model)

    def collective_rpc(self, method, kwargs) -> None:
        self.done.append(method)
        self.weights = {name: w.clone() for name, w in kwargs["weights_iterator"]}

    def wake_up(self, tags) -> None:
        self.done += [f"wake {tag}" for tag in tags]

    def sleep(self, level) -> None:
        self.done.append(f"sleep {level}")

    def reset_mm_cache(self) -> None:
        self.done.append("reset pictures")

    def reset_prefix_cache(self) -> None:
        self.done.append("reset prefixes")

    def generate(self, prompts, rules, *, use_tqdm) -> list[SimpleNamespace]:
        self.done.append("generate")
        self.asked += zip(prompts, rules, strict=True)
        return [self._one(*pair) for pair in zip(prompts, rules, strict=True)]

    def _one(self, prompt, rules) -> SimpleNamespace:
        pad = tiny.tokenizer().get_vocab()[PAD]
        images = iter(prompt["multi_modal_data"]["image"])
        read: list[int] = []
        for token in prompt["prompt_token_ids"]:
            times = visual_tokens(next(images).size, 28) + self.resized if token == pad else 1
            read += [token] * times
        ids = [250 + rules.seed % 300, rules.stop_token_ids[0]][: rules.max_tokens]
        logprobs = [{token: SimpleNamespace(logprob=-1.0 - n)} for n, token in enumerate(ids)]
        output = SimpleNamespace(token_ids=ids, logprobs=logprobs)
        return SimpleNamespace(prompt_token_ids=read, outputs=[output])


@pytest.fixture(autouse=True)
def double(monkeypatch):
    module = SimpleNamespace(LLM=Double, SamplingParams=SimpleNamespace)
    platform = SimpleNamespace(is_cpu=lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=platform))
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")


def sampler(tmp_path, **changes) -> VllmSampler:
    policy = TransformersPolicy(
        tiny.model(),
        tiny.tokenizer(),
        QWEN2_5_VL,
        sampling=Sampling(temperature=1.0, max_new_tokens=6),
    )
    run = replace(TrainConfig(sampler="vllm", device="cpu", max_new_tokens=6), **changes)
    return VllmSampler(policy, run, tmp_path)


def several_pictures():
    first = tiny.view(0)
    return [
        replace(tiny.context("What mark?", first), key="s"),
        replace(tiny.context("What mark?", first), key="s 1"),
        replace(tiny.context("What mark?", first, tiny.crop_turn(1), tiny.crop_turn(2)), key="s"),
    ]


def test_vllm_reads_the_encoders_tokens_with_one_placeholder_per_picture(tmp_path):
    made = sampler(tmp_path)
    contexts = several_pictures()
    replies = made.reply(contexts)
    rows = [made.policy.encoder.context(context) for context in contexts]
    pad = made.policy.encoder.image_pad
    names = []
    for (prompt, _), row, context in zip(Double.last.asked, rows, contexts, strict=True):
        ids = prompt["prompt_token_ids"]
        assert ids.count(pad) == len(context.views)
        assert [token for token in ids if token != pad] == row.ids[row.ids != pad].tolist()
        assert prompt["multi_modal_data"]["image"] == [view.image for view in context.views]
        names.append(prompt["multi_modal_uuids"]["image"])
    assert names[0] == names[1] == names[2][:1]  # the shared first view is prepared once
    assert len(set(names[2])) == 3
    for reply, row in zip(replies, rows, strict=True):
        assert len(reply.token_ids) == len(reply.logprobs) == 2
        assert reply.text == tiny.tokenizer().decode(reply.token_ids[:1])
        assert reply.logprobs == (-1.0, -2.0)
        assert (reply.usage.prompt_tokens, reply.finish) == (len(row.ids), "stop")


def test_each_rollout_and_turn_has_its_own_seed_which_repeats(tmp_path):
    made = sampler(tmp_path)
    made.reseed(5)
    made.reply(several_pictures())
    seeds = [rules.seed for _, rules in Double.last.asked]
    assert len(set(seeds)) == 3
    made.reply(several_pictures()[::-1])
    assert [rules.seed for _, rules in Double.last.asked[3:]] == seeds[::-1]
    made.reseed(6)
    made.reply(several_pictures())
    assert not set(seeds) & {rules.seed for _, rules in Double.last.asked[6:]}


def test_banned_tokens_have_no_probability(tmp_path):
    made = sampler(tmp_path)
    banned = made.policy.writer.banned
    logits = Double.last.model.compute_logits(torch.zeros(2, len(banned)))
    assert torch.equal(logits == float("-inf"), banned.expand(2, -1))
    assert bool(banned[made.policy.encoder.image_pad])


def test_a_picture_that_vllm_would_resize_ends_the_run_with_a_sentence(tmp_path):
    made = sampler(tmp_path)
    Double.last.resized = 1
    with pytest.raises(RunError, match=r"vLLM reads \d+ tokens where .* resizes pictures"):
        made.reply(several_pictures()[:1])


def test_weights_go_over_before_sampling_and_a_gpu_is_free_after_it(tmp_path):
    made = sampler(tmp_path)
    made._sleeps = True
    with made.synced():
        made.reply(several_pictures()[:1])
    assert Double.last.done == [
        "wake weights",
        "reload_weights",
        "wake kv_cache",
        "reset pictures",
        "reset prefixes",
        "reset encoder",
        "generate",
        "sleep 2",
    ]
    model = made.policy.model
    assert set(Double.last.weights) == set(model.state_dict()) - {"lm_head.weight"}  # tied
    with torch.no_grad():
        model.model.language_model.norm.weight.add_(1)
    Double.last.done.clear()
    with pytest.raises(KeyboardInterrupt), made.synced():
        raise KeyboardInterrupt
    assert Double.last.done[-1] == "sleep 2"
    assert torch.equal(
        Double.last.weights["model.language_model.norm.weight"],
        model.model.language_model.norm.weight,
    )


def test_merged_weights_have_the_names_and_outputs_of_the_model_with_adapters():
    model = tiny.model()
    plain = {name: weight.clone() for name, weight in model.state_dict().items()}
    layers = adapted_layers(model, ("q_proj", "down_proj"), vision=True)
    add_adapters(model, layers, rank=2, alpha=6, seed=0)
    with torch.no_grad():
        for weight in adapters(model).values():
            weight.normal_(std=0.1)
    merged = dict(merged_weights(model))
    assert set(merged) == set(plain) - {"lm_head.weight"}  # tied
    changed = {name for name, weight in merged.items() if not torch.equal(weight, plain[name])}
    assert changed == {f"{layer}.weight" for layer in layers}
    inputs = torch.randn(3, 128)
    layer = layers[0]
    assert torch.allclose(
        torch.nn.functional.linear(inputs, merged[f"{layer}.weight"], plain.get(f"{layer}.bias")),
        model.get_submodule(layer)(inputs),
        atol=1e-5,
    )


@pytest.fixture
def base(tmp_path):
    save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path / "init")
    (tmp_path / "data").mkdir()
    samples = [tiny.sample(tmp_path / "data", n, answer=str(n)) for n in range(5)]
    write_samples(samples, tmp_path / "data")
    return tmp_path


def rows_of(run: TrainConfig) -> Sequence[dict]:
    return [
        {name: value for name, value in row.items() if not name.startswith("seconds")}
        for row in RunFolder(run.out).metrics()
    ]


def test_a_run_samples_with_vllm_from_the_weights_of_each_step_and_continues_exactly(
    base, monkeypatch
):
    whole = config(base, base / "whole", steps=2, save_every=1, sampler="vllm")
    train(whole, progress=False, reward=early_tokens)
    first = Double.last
    assert first.arguments["model"] == str(base / "init")
    # 8192 + 5 do not fit into the positions of the checkpoint
    assert (
        first.arguments["max_model_len"]
        == load_checkpoint(base / "init")[0].config.get_text_config().max_position_embeddings
    )
    assert first.arguments["dtype"] == "float32"
    assert first.arguments["enable_chunked_prefill"] is False  # as the double runs on a CPU
    assert first.done.count("reload_weights") == 2
    parts = replace(whole, out=base / "parts")
    tiny.train_in_two_parts(parts, early_tokens, monkeypatch)
    assert Double.last is not first
    assert rows_of(whole) == rows_of(parts)
    for name, weight in first.weights.items():
        assert torch.equal(weight, Double.last.weights[name]), name
    draws = [rules.seed for _, rules in first.asked]
    assert draws[-12:] == [rules.seed for _, rules in Double.last.asked][-12:]
    assert all(row["grad_norm"] > 0 for row in rows_of(whole))
    assert all(row["logprob_gap_mean"] > 0.1 for row in rows_of(whole))  # the double's are made up


def test_a_conversation_beyond_the_limit_is_not_asked(tmp_path):
    made = sampler(tmp_path)
    contexts = several_pictures()
    lengths = [len(made.policy.encoder.context(one).ids) for one in contexts]
    made.limit = max(lengths)
    replies = made.reply(contexts)
    assert replies[2] == UNASKED
    assert [len(reply.token_ids) for reply in replies] == [2, 2, 0]
    assert len(Double.last.asked) == 2
    assert made.reply(contexts[2:]) == [UNASKED]


def test_episodes_beyond_the_limit_are_overlong_and_not_trained_on(base):
    run = config(base, base / "run", steps=1, sampler="vllm", vllm=SamplerLimits(max_model_len=20))
    train(run, progress=False)
    (row,) = rows_of(run)
    assert (row["overlong"], row["trained_rollouts"], row["unanswered"]) == (6, 0, 1)


def test_too_little_memory_for_sampling_names_the_share_of_vllm():
    run = TrainConfig(sampler="vllm", vllm=SamplerLimits(gpu_share=0.5))
    with (
        pytest.raises(RunError, match=r"while playing .* lower --gpu-share \(now 0\.5\), then"),
        out_of_memory_explained("playing", run),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_without_vllm_nothing_is_written_and_one_sentence_said(base, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vllm", None)
    words = ["train", "stage1", "--data", str(base / "data"), "--init", str(base / "init")]
    words += ["--out", str(base / "run"), "--sampler", "vllm", "--device", "cpu"]
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert "vLLM cannot be imported" in said
    assert "install it, or use --sampler transformers" in said
    assert said.count("\n") == 1
    assert not (base / "run").exists()


def test_options_of_vllm_without_it_are_refused(capsys):
    words = ["train", "stage1", "--dry-run", "--cluster.model", "3B"]
    assert cli.main([*words, "--gpu-share", "0.4"]) == 1
    assert "use them with --sampler vllm" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="`sampler` must be one of transformers, vllm"):
        replace(TrainConfig(), sampler="other")


def test_another_gpu_than_the_first_is_refused():
    run = TrainConfig(sampler="vllm", device="cuda:1")
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES=1 in place of `device` cuda:1"):
        check_sampler(run, torch.device("cuda:1"))
    check_sampler(replace(run, sampler="transformers"), torch.device("cuda:1"))


def test_vllm_takes_what_weights_and_optimiser_leave_of_a_gpu():
    shape = SHAPES["3B"]
    full = TrainConfig(sampler="vllm")
    gib = shape.parameters / 2**30
    # float32 weights and two moments: 12 bytes a parameter of 80 GiB; nine tenths count
    assert sampler_share(shape, full, 80, half=True) == pytest.approx(0.9 - 12 * gib / 80, abs=0.01)
    lora = replace(full, lora=LoraConfig())
    assert sampler_share(shape, lora, 24, half=True) > 0.5
    given = replace(lora, vllm=SamplerLimits(gpu_share=0.4))
    assert sampler_share(shape, given, 24, half=True) == 0.4
    with pytest.raises(ConfigError, match=r"`sampler` vllm gets .* weights needs .* use --lora"):
        sampler_share(shape, full, 48, half=True)


def test_the_estimate_names_the_share_of_vllm(capsys):
    words = [
        "train",
        "stage1",
        "--dry-run",
        "--cluster.model",
        "3B",
        "--gpu-memory",
        "80",
        "--sampler",
        "vllm",
    ]
    assert cli.main(words) == 0
    assert "GiB for vLLM (--gpu-share 0.37)" in capsys.readouterr().out
