"""Memory of sampling and of an update: bounded by tokens, whatever the number of questions."""

import gc
import logging
import weakref
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from live_storages import LiveStorages

from lfpc.dialogue import Answer, Reply, Turn
from lfpc.episode import Episode, Stop, episode
from lfpc.errors import ConfigError, PolicyError
from lfpc.evaluation.opened import first_view
from lfpc.images import CropRules
from lfpc.looks import original_look
from lfpc.playing.driver import one_game, play_samples
from lfpc.policies.backends import Placement, Transformers
from lfpc.policies.devices import placed, precision
from lfpc.policies.qwen import attention, sampling
from lfpc.policies.qwen.language import read
from lfpc.policies.qwen.vision import token_pieces
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy, row_features
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL
from lfpc.training.config import TrainConfig
from lfpc.training.rollouts import rollout_of
from lfpc.training.update import Learner, micro_batches

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
GPU = torch.device("cuda")


def policy(**options):
    return TransformersPolicy(
        tiny.model(),
        tiny.tokenizer(),
        QWEN2_5_VL,
        sampling=Sampling(max_new_tokens=6),
        **options,
    )


def contexts(count, side=112):
    return [tiny.context("What mark?", tiny.view(n, side, side)) for n in range(count)]


# ---- device and precision


def test_a_gpu_computes_in_bfloat16_and_the_cpu_in_float32_unless_said_otherwise():
    assert [precision(Placement(), device) for device in (CPU, GPU)] == [
        torch.float32,
        torch.bfloat16,
    ]
    assert precision(Placement(dtype="float32"), GPU) == torch.float32
    assert precision(Placement(dtype="bfloat16"), CPU) == torch.bfloat16
    assert placed(Transformers(device="cpu", dtype="bfloat16")) == (CPU, torch.bfloat16)


def test_auto_takes_the_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    assert placed(Placement()) == (torch.device("meta"), torch.bfloat16)


@pytest.mark.parametrize("name", ["nowhere", "cuda:7"])
def test_an_unavailable_device_is_named(name):
    with pytest.raises(ConfigError, match=f"`device` {name} is unavailable"):
        placed(Placement(device=name))


# ---- sampling


def test_batches_hold_so_many_tokens_and_change_no_greedy_reply():
    wide = policy()
    asked = contexts(5) + contexts(2, side=224)
    expected = wide.reply(asked)
    narrow = policy(batch_tokens=400)
    batches = []
    whole = narrow._reply_batch

    def noted(rows, randoms):
        batches.append((len(rows), max(len(row.ids) for row in rows) + 6))
        return whole(rows, randoms)

    narrow._reply_batch = noted
    assert [reply.token_ids for reply in narrow.reply(asked)] == [r.token_ids for r in expected]
    assert sum(rows for rows, _ in batches) == 7
    assert all(rows * length <= 400 or rows == 1 for rows, length in batches)
    assert len(batches) > 1


def test_memory_of_an_evaluation_follows_the_batch_and_not_the_questions():
    def peak(questions, **options):
        made = policy(**options)
        with torch.no_grad(), made.cached_views(), LiveStorages() as live:
            for start in range(0, questions, 16):
                made.reply(contexts(questions)[start : start + 16])
        return live.peak

    small, large = (peak(count, batch_tokens=400) for count in (32, 96))
    assert large < 1.05 * small
    assert peak(96, batch_tokens=2000) > 1.5 * large


FULL = torch.OutOfMemoryError("CUDA out of memory")


class Full:
    """A reply that needs more memory than there is for more than `most` rows."""

    def __init__(self, made, most, error=FULL):
        self.whole, self.most, self.error = made._reply_batch, most, error
        self.sizes, self.failed, self.alive = [], None, []

    def __call__(self, rows, randoms):
        gc.collect()
        self.alive.append(self.failed is not None and self.failed() is not None)
        self.sizes.append(len(rows))
        if len(rows) > self.most:
            half_done = torch.zeros(1000)
            self.failed = weakref.ref(half_done)
            raise type(self.error)(*self.error.args)  # a fresh one: it keeps its frames
        return self.whole(rows, randoms)


CPU_ERROR = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), CPU_ERROR])
def test_a_batch_that_does_not_fit_is_halved_after_its_memory_is_free(caplog, error):
    made = policy()
    expected = [reply.token_ids for reply in policy().reply(contexts(7))]
    made._reply_batch = full = Full(made, 2, error)
    with caplog.at_level(logging.WARNING):
        assert [reply.token_ids for reply in made.reply(contexts(7))] == expected
    assert full.sizes == [7, 4, 2, 2, 2, 1]
    assert not any(full.alive)
    assert "a batch of 7 conversations" in caplog.text
    assert f"--batch-tokens {made.batch_tokens}" in caplog.text
    full.sizes.clear()
    made.reply(contexts(7))
    assert max(full.sizes) == 2, "the next call starts with what fitted"


def test_a_single_conversation_that_does_not_fit_is_said(caplog):
    made = policy()
    made._reply_batch = Full(made, 0)
    with pytest.raises(PolicyError, match=r"a conversation of \d+ tokens does not fit"):
        made.reply(contexts(2))


def test_another_error_of_a_batch_is_not_taken_for_a_full_device():
    made = policy()
    made._reply_batch = Full(made, 0, RuntimeError("mat1 and mat2"))
    with pytest.raises(RuntimeError, match="mat1"):
        made.reply(contexts(2))


def test_questions_are_asked_one_by_one_after_the_failed_batch_is_free(tmp_path):
    alive = []

    class Failing:
        failed = None

        def reply(self, contexts):
            if len(contexts) > 1:
                half_done = torch.zeros(1000)
                Failing.failed = weakref.ref(half_done)
                raise RuntimeError("a kernel failed")
            gc.collect()
            alive.append(Failing.failed() is not None)
            return [Reply("<answer>7</answer>")]

    samples = [tiny.sample(tmp_path, n) for n in range(3)]
    look = original_look(CropRules(min_tokens=1, max_tokens=16))
    found = []
    play_samples(
        samples,
        one_game(lambda s: episode(s, first_view(s, 16), look=look, protocol=QWEN2_5_VL)),
        Failing(),
        found.extend,
    )
    assert len(found) == 3
    assert alive == [False] * 3


# ---- attention without a mask of rows x length squared


def states(made, rows):
    got = read(made.model, rows, row_features(made.views, rows), prefixes={})
    return got.hidden


def test_attention_in_pieces_gives_the_same_states_and_gradients(monkeypatch):
    asked = [
        *contexts(2),
        tiny.context("What mark is it?", tiny.view(5), tiny.crop_turn(6, width=84)),
    ]
    results = []
    for elements in (attention.MASK_ELEMENTS, 700):
        monkeypatch.setattr(attention, "MASK_ELEMENTS", elements)
        made = policy()
        rows = [made.encoder.context(context) for context in asked]
        hidden = states(made, rows)
        # columns of padding hold nothing that is read
        loss = (hidden[:, -3:] * torch.linspace(-1, 1, hidden.shape[2])).sum()
        loss.backward()
        grads = {name: weight.grad for name, weight in made.model.named_parameters()}
        results.append((hidden[:, -3:].detach(), grads))
        language = made.model.model.language_model
        assert (language.config._attn_implementation == attention.PIECEWISE) == (elements == 700)
    (a, ga), (b, gb) = results
    assert torch.allclose(a, b, atol=1e-5)
    for name, grad in ga.items():
        if grad is not None:
            assert torch.allclose(grad, gb[name], atol=1e-4 * max(1, float(grad.abs().max()))), name


def test_no_tensor_is_as_large_as_rows_by_length_squared(monkeypatch):
    made = policy()
    asked = [tiny.context("What? " * (300 + n), tiny.view(n)) for n in range(4)]
    rows = [made.encoder.context(context) for context in asked]
    length = max(len(row.ids) for row in rows)
    assert length > 1500
    monkeypatch.setattr(attention, "MASK_ELEMENTS", 100_000)
    with torch.no_grad(), LiveStorages() as live:
        states(made, rows)
    mask = 4 * len(rows) * length**2  # bytes in float32
    assert live.largest < mask / 3
    monkeypatch.setattr(attention, "MASK_ELEMENTS", 2**26)
    with torch.no_grad(), LiveStorages() as live:
        states(policy(), rows)
    assert live.largest >= mask * 0.95


# ---- the update


def learner(**changes):
    made = TransformersPolicy(
        tiny.model(),
        tiny.tokenizer(),
        QWEN2_5_VL,
        sampling=Sampling(temperature=1, max_new_tokens=6),
    )
    return Learner(made, TrainConfig(learning_rate=1e-3, **changes))


def rollouts(made, questions, *, group=2, side=112):
    asked = [c for c in contexts(questions, side) for _ in range(group)]
    sample = tiny.Sample(id="s", image=tiny.Path("none.png"), question="What mark?", answer="7")
    return [
        rollout_of(
            Episode(sample, c.first_view, (Turn(reply, Answer("7")),), Stop.ANSWERED),
            made.policy.encoder,
            max_rollout_tokens=10_000,
        )
        for c, reply in zip(asked, made.policy.reply(asked), strict=True)
    ]


def gradients(made, rows):
    kept = {}
    made.optimizer.step = lambda: kept.update(
        {name: w.grad.clone() for name, w in made.model.named_parameters() if w.grad is not None}
    )
    report = made.update(rows, [1.0, -1.0] * (len(rows) // 2), step=1)
    return kept, report


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_checkpointing": True},
        {"micro_batch_tokens": 60},
        {"micro_batch_tokens": 60, "gradient_checkpointing": True},
        {"micro_batch_tokens": 60, "gradient_checkpointing": True, "share": False},
    ],
)
def test_what_saves_memory_changes_no_gradient(changes, monkeypatch):
    plain = learner()
    rows = rollouts(plain, 3)
    expected, report = gradients(plain, rows)
    assert report.trained_rollouts == 6
    monkeypatch.setattr(sampling, "LOGIT_ELEMENTS", 4000)  # two tokens at a time
    saving, other = gradients(learner(**changes), rows)
    assert set(saving) == set(expected)
    for name, gradient in expected.items():
        assert torch.allclose(gradient, saving[name], atol=1e-5), name
    assert other.loss == pytest.approx(report.loss, abs=1e-6)
    assert other.logprob_gap < 1e-5


def test_micro_batches_hold_so_many_tokens():
    made = learner()
    rows = rollouts(made, 4)
    lengths = [len(row.encoded.ids) for row in rows]
    most = 3 * max(lengths)
    found = list(micro_batches(rows, range(8), 64, most))
    assert sorted(n for batch in found for n in batch) == list(range(8))
    assert all(sum(lengths[n] for n in batch) <= most for batch in found)
    assert [len(batch) for batch in micro_batches(rows, range(8), 64, 1)] == [1] * 8
    assert token_pieces([3, 3, 3, 9, 1], 6) == [[0, 1], [2], [3], [4]]


def test_memory_of_an_update_does_not_grow_with_the_questions():
    def peak(questions, **changes):
        made = learner(**changes)
        rows = rollouts(made, questions, side=224)
        made.optimizer.step = lambda: None
        with LiveStorages() as live:
            made.update(rows, [1.0, -1.0] * questions, step=1)
        return live.peak

    bounded = {"micro_batch_tokens": 250, "gradient_checkpointing": True}
    few, many = (peak(count, **bounded) for count in (4, 12))
    assert many < 1.15 * few
    assert peak(12) > 3 * many, "with everything in one pass it grows"


def test_log_probabilities_hold_the_logits_of_one_piece(monkeypatch):
    head = torch.nn.Linear(16, 5000, bias=False)
    hidden = torch.randn(400, 16, requires_grad=True)
    tokens = torch.arange(400)
    banned = torch.zeros(5000, dtype=torch.bool)

    def measured(elements):
        monkeypatch.setattr(sampling, "LOGIT_ELEMENTS", elements)
        hidden.grad = head.weight.grad = None
        with LiveStorages() as live:
            found = sampling.token_logprobs(head, hidden, tokens, temperature=1.0, banned=banned)
            found.sum().backward()
        return found.detach(), hidden.grad.clone(), live.peak

    whole, gradient, much = measured(2**25)
    pieces, same, little = measured(20 * 5000)
    assert torch.allclose(whole, pieces, atol=1e-6)
    assert torch.allclose(gradient, same, atol=1e-6)
    assert little < much / 5


def test_the_8_bit_optimiser_is_bitsandbytes_or_a_sentence(monkeypatch):
    with pytest.raises(ConfigError, match="`optimizer` adamw-8bit needs the package bitsandbytes"):
        learner(optimizer="adamw-8bit")
    made = {}

    class Fake(torch.optim.SGD):
        def __init__(self, weights, **settings):
            made.update(settings)
            super().__init__(weights, lr=settings["lr"])

    package = type(torch)("bitsandbytes.optim")
    package.AdamW8bit = Fake
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", type(torch)("bitsandbytes"))
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", package)
    assert isinstance(learner(optimizer="adamw-8bit").optimizer, Fake)
    assert made == {"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.95)}


def test_a_bound_below_one_token_is_refused():
    for name in ("micro_batch_tokens", "gpu_memory", "batch_tokens"):
        with pytest.raises(ConfigError, match="at least 1"):
            replace(TrainConfig(), **{name: 0})
    assert np.isfinite(TrainConfig().batch_tokens)
