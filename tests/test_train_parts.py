"""Advantages, loss, rows, metrics, alarms, configuration and presets, with numbers worked out by
hand."""

import random
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from lfpc.boxes import Box
from lfpc.dialogue import Answer, Crop, Malformed, Reason, Reply, Turn
from lfpc.episode import Episode, Stop
from lfpc.errors import ConfigError
from lfpc.images import CropRules
from lfpc.policies.qwen.encode import Encoder
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL
from lfpc.rewards import RewardConfig, RewardTerms
from lfpc.samples import Sample
from lfpc.training.config import LoraConfig, TrainConfig
from lfpc.training.groups import group_advantages, groups_of, places_to_log
from lfpc.training.loss import clipped_loss, token_weights
from lfpc.training.presets import PRESETS, preset
from lfpc.training.rollouts import rollout_of, rollouts_of
from lfpc.training.statistics import (
    ALARM_TEXTS,
    LIMITS,
    alarms,
    episode_numbers,
    sampling_numbers,
    signal_shares,
)

pytestmark = pytest.mark.slow
SAMPLE = Sample(
    id="s",
    image=Path("s.png"),
    question="What mark?",
    answer="7",
    boxes=((tiny.BOX, Box(0.25, 0.25, 0.75, 0.5)),),
)


def episode(*turns: Turn, sample: Sample = SAMPLE) -> Episode:
    answered = bool(turns) and isinstance(turns[-1].action, Answer)
    return Episode(
        sample, tiny.view(0, 56, 56), turns, Stop.ANSWERED if answered else Stop.MAX_TURNS
    )


def answer(text="7"):
    return Turn(tiny.reply(f"<answer>{text}</answer>", closed=False), Answer(text))


def test_advantages_by_hand():
    # mean 1, squared differences 1 0 1 0 0 ... of [0, 1, 2, 1]: variance 2 / 4, std 0.7071
    assert group_advantages([0, 1, 2, 1], epsilon=0) == pytest.approx([-(2**0.5), 0, 2**0.5, 0])


def test_equal_rewards_teach_nothing():
    assert group_advantages([0.1 + 0.2, 0.3, 0.3]) == [0.0, 0.0, 0.0]


def test_advantages_have_mean_zero_and_do_not_depend_on_scale_or_offset():
    rewards = [0.0, 1.0, 1.5, -1.0, 1.0]
    a = group_advantages(rewards)
    b = group_advantages([3 + 2 * r for r in rewards])
    assert sum(a) == pytest.approx(0)
    assert a == pytest.approx(b, abs=1e-5)


def test_advantages_without_division_are_differences_from_the_mean():
    assert group_advantages([0, 1, 2, 1], scale="none") == [-1, 0, 1, 0]
    assert group_advantages([0.3, 0.3], scale="none") == [0, 0]
    groups = groups_of(
        [episode(answer())] * 2, [RewardTerms(), RewardTerms(tool=0.5)], size=2, scale="none"
    )
    assert groups[0].advantages == (-0.25, 0.25)


def test_loss_by_hand():
    # ratios 2 and 0.5 with clip 0.2: A > 0: min(2, 1.2) = 1.2, min(0.5, 0.8) = 0.5; A < 0: min(-2,
    # -1.2) = -2, min(-0.5, -0.8) = -0.8
    logprobs = torch.tensor([2.0, 0.5, 2.0, 0.5]).log().requires_grad_()
    loss, clipped = clipped_loss(
        logprobs, torch.zeros(4), torch.tensor([1.0, 1, -1, -1]), torch.full((4,), 0.25), clip=0.2
    )
    assert loss.item() == pytest.approx(-(1.2 + 0.5 - 2 - 0.8) / 4)
    assert clipped.tolist() == [True, False, False, True]
    loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx(
        [0, -0.5 / 4, 2 / 4, 0]
    )  # -weight * A * ratio, 0 where clipped


def test_log_probabilities_far_apart_leave_loss_and_gradient_finite():
    # exp(200) is infinite in float32, and infinity times an advantage of 0 is no number
    logprobs = torch.tensor([-1.0, -1.0, -201.0, -2.0], requires_grad=True)
    sampled = torch.tensor([-201.0, -201.0, -1.0, -2.0])
    loss, _ = clipped_loss(
        logprobs, sampled, torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.full((4,), 0.25), clip=0.2
    )
    loss.backward()
    assert loss.item() == pytest.approx(-(0 + 1.2 + 0 + 1) / 4)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0, 0, 0, -0.25], abs=1e-8)
    worst, _ = clipped_loss(
        torch.tensor([-1.0]), torch.tensor([-201.0]), torch.tensor([-1.0]), torch.ones(1), clip=0.2
    )
    assert worst.isfinite()


def test_the_first_update_is_the_plain_policy_gradient():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, clipped = clipped_loss(
        logprobs, logprobs.detach(), torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.5]), clip=0.2
    )
    loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-0.5, 1.0]
    assert not clipped.any()


def test_token_weights_by_hand():
    lengths = np.array([1, 3, 0])
    assert token_weights(lengths, "token-mean") == pytest.approx([0.25, 0.25, 0.25])
    assert token_weights(lengths, "sequence-mean") == pytest.approx(
        [1 / 2, 1 / 6, 0]
    )  # two rollouts with tokens
    for name in ("token-mean", "sequence-mean"):
        assert (token_weights(lengths, name) * lengths).sum() == pytest.approx(1)


def test_only_replies_are_trained_and_those_of_every_turn():
    encoder = Encoder(tiny.tokenizer(), QWEN2_5_VL)
    crop = tiny.crop_turn(1, closed=True)
    last = answer()
    row = rollout_of(episode(crop, last), encoder, max_rollout_tokens=1000)
    trained = [token for token, one in zip(row.input_ids, row.mask, strict=True) if one]
    assert trained == [*crop.reply.token_ids, *last.reply.token_ids]
    assert len(row.logprobs) == len(trained)
    assert not any(
        one
        for token, one in zip(row.input_ids, row.mask, strict=True)
        if token == encoder.image_pad
    )


def test_a_mask_drawn():
    encoder = Encoder(tiny.tokenizer(), replace(QWEN2_5_VL, direct_system=""), tools=False)
    short = replace(SAMPLE, question="7")
    crop = Turn(Reply("12", (20, 21), (-1.0, -1.0)), Crop(tiny.BOX), tiny.view(1, 28, 28))
    last = Turn(Reply("3", (22, encoder.end_of_turn), (-1.0, -1.0)), Answer("3"))
    row = rollout_of(
        Episode(short, tiny.view(0, 28, 28), (crop, last), Stop.ANSWERED),
        encoder,
        max_rollout_tokens=100,
    )
    names = [tiny.tokenizer().convert_ids_to_tokens(token) for token in row.input_ids]
    assert names[:3] == ["<|im_start|>", "user\n", "<|vision_start|>"]
    #  prompt: s u v V w 7 e n s a   reply  end n s u <t> v V w </t> e n s a   reply
    drawn = "0 0 0 0 0 0 0 0 0 0      1 1    0   0 0 0 0   0 0 0 0    0 0 0 0   1 1"
    assert row.mask == [int(one) for one in drawn.split()]
    assert row.encoded.prefix == 9


def test_an_overlong_rollout_is_masked_and_said_to_be():
    row = rollout_of(
        episode(answer()), Encoder(tiny.tokenizer(), QWEN2_5_VL), max_rollout_tokens=10
    )
    assert row.overlong
    assert sum(row.mask) == len(row.logprobs) == 0


def test_an_episode_without_an_answer_is_trained_on_or_masked():
    gave_up = episode(tiny.crop_turn(1), tiny.crop_turn(2, closed=True))
    answered = episode(tiny.crop_turn(1), answer("7"))
    encoder = Encoder(tiny.tokenizer(), QWEN2_5_VL)
    for unanswered, trained in (("penalise", [True, True]), ("mask", [False, True])):
        rows = rollouts_of(
            [gave_up, answered],
            encoder,
            max_rollout_tokens=500,
            masks=replace(preset("stage1"), unanswered=unanswered).masks,
        )
        assert [any(row.mask) for row in rows] == trained
        assert [len(row.logprobs) == sum(row.mask) for row in rows] == [True, True]
        assert not any(row.overlong for row in rows)


def test_a_reply_that_nobody_sampled_cannot_be_trained():
    scripted = Turn(Reply("<answer>7</answer>"), Answer("7"))
    with pytest.raises(ValueError, match="without sampled tokens"):
        rollout_of(episode(scripted), Encoder(tiny.tokenizer(), QWEN2_5_VL), max_rollout_tokens=100)


def test_metrics_of_a_step_by_hand():
    right = episode(tiny.crop_turn(1), answer("7"))
    wrong = episode(Turn(tiny.reply("hm"), Malformed("no_action", "Error: no.")))
    numbers = episode_numbers(
        [right, wrong], [RewardTerms(accuracy=1, tool=0.5), RewardTerms(format=-1)]
    )
    assert numbers["reward"] == pytest.approx(0.25)
    assert numbers["reward_std"] == pytest.approx(1.25)
    assert (
        numbers["accuracy"],
        numbers["tool_rate"],
        numbers["malformed"],
        numbers["unanswered"],
    ) == (0.5, 0.5, 0.5, 0.5)
    assert numbers["turns"] == 1.5
    assert (numbers["crops"], numbers["repeats"]) == (0.5, 0)
    written = [turn.reply.token_ids for one in (right, wrong) for turn in one.turns]
    assert numbers["reply_tokens"] == sum(map(len, written)) / 2
    assert numbers["box_area"] == pytest.approx(1 / 16)
    assert numbers["iou_last"] == pytest.approx(1)
    assert numbers["reward_grounding"] == 0


def test_metrics_without_a_crop_are_absent_not_nan():
    numbers = episode_numbers([episode(answer())], [RewardTerms()])
    assert numbers["box_area"] is None
    assert numbers["iou_last"] is None


def test_no_episodes_have_no_numbers():
    assert set(episode_numbers([], []).values()) == {None}


def test_the_iou_of_a_step_takes_the_best_truth_box():
    # half of the wider box: 1/16 of 1/8; the tighter one is met exactly
    wider = replace(SAMPLE, boxes=(SAMPLE.boxes[0][1:],))
    for sample, iou in ((SAMPLE, 1), (wider, 0.5)):
        played = episode(tiny.crop_turn(1), answer(), sample=sample)
        numbers = episode_numbers([played], [RewardTerms()])
        assert (numbers["iou_last"], numbers["iou_best"]) == (pytest.approx(iou),) * 2


def test_entropy_and_flat_groups_by_hand():
    turn = Turn(Reply("ab", (5, 6), (-1.0, -3.0)), Answer("ab"))
    terms = [RewardTerms(accuracy=a) for a in (1, 1, 1, 0)]
    numbers = sampling_numbers(groups_of([episode(turn)] * 4, terms, size=2))
    shares = {name: numbers.pop(name) for name in list(numbers) if name.startswith("signal_")}
    assert numbers == {"entropy": 2.0, "policy_tokens": 8.0, "zero_variance": 0.5}
    assert shares.pop("signal_accuracy") == 1.0
    assert set(shares.values()) == {0.0}


def test_the_signal_of_each_term_is_its_share_of_the_variance_within_groups():
    turn = Turn(Reply("ab", (5, 6), (-1.0, -3.0)), Answer("ab"))
    # first group: accuracy 0, 1 and grounding 0, 0.5 (together 0, 1.5); second: all alike
    terms = [
        RewardTerms(),
        RewardTerms(accuracy=1.0, grounding=0.5),
        RewardTerms(accuracy=1.0, tool=0.5),
        RewardTerms(accuracy=1.0, tool=0.5),
    ]
    numbers = signal_shares(groups_of([episode(turn)] * 4, terms, size=2))
    assert numbers["signal_accuracy"] == pytest.approx(2 / 3)
    assert numbers["signal_grounding"] == pytest.approx(1 / 3)
    assert numbers["signal_tool"] == 0  # half a point for everyone teaches nothing
    flat = signal_shares(groups_of([episode(turn)] * 2, terms[2:], size=2))
    assert set(flat.values()) == {None}


def test_a_group_compares_the_episodes_of_one_sample():
    episodes = [episode(answer(str(n))) for n in range(4)]
    first, second = groups_of(
        episodes, [RewardTerms(accuracy=a) for a in (1.5, 1.0, 0.5, 0.5)], size=2
    )
    assert first.sample is SAMPLE
    assert first.episodes + second.episodes == tuple(episodes)
    assert first.advantages == tuple(group_advantages([1.5, 1.0]))
    assert (first.has_signal, second.has_signal) == (True, False)


def test_every_group_is_logged_once_before_any_is_logged_twice():
    groups = groups_of([episode(answer())] * 6, [RewardTerms()] * 6, size=3)
    assert places_to_log(groups, 3) == [(0, 0), (0, 1), (1, 0)]
    assert places_to_log(groups, 1) == [(0, 0)]
    assert len(places_to_log(groups, 9)) == 6


HEALTHY = {
    "tool_rate": 0.5,
    "turns": 2.0,
    "crops": 0.6,
    "repeats": 0.1,
    "reply_tokens": 80.0,
    "accuracy": 0.5,
    "malformed": 0.05,
    "unanswered": 0.02,
    "truncated": 0.02,
    "answered_before_crop": 0.1,
    "box_area": 0.1,
    "entropy": 0.8,
    "zero_variance": 0.4,
    "reward": 0.6,
    "grad_norm": 1.0,
    "logprob_gap": 0.0,
}


def history(steps=10, **late):
    return [HEALTHY] * 5 + [{**HEALTHY, **late}] * (steps - 5)


@pytest.mark.parametrize(
    ("code", "late"),
    [
        ("no_tool", {"tool_rate": 0.01}),
        ("no_entropy", {"entropy": 0.15}),
        ("reward", {"reward": 0.1}),
        ("accuracy", {"accuracy": 0.2}),
        ("turns", {"turns": 4.0}),
        ("long", {"reply_tokens": 300.0}),
        ("box_grows", {"box_area": 0.3}),
        ("box_shrinks", {"box_area": 0.02}),
        ("no_gradient", {"grad_norm": None}),
    ],
)
def test_each_change_of_a_run_has_its_alarm_and_its_text(code, late):
    assert alarms(history(**late)) == [code]
    assert code in ALARM_TEXTS
    assert alarms(history(**late)[:9]) == []


@pytest.mark.parametrize(
    ("code", "broken"),
    [
        ("no_tool", {"tool_rate": 0.0}),
        ("malformed", {"malformed": 1.0}),
        ("unanswered", {"unanswered": 1.0}),
        ("truncated", {"truncated": 0.8}),
        ("crops", {"crops": 5.0}),
        ("repeats", {"repeats": 0.8}),
        ("long", {"reply_tokens": 4000.0}),
        ("flat_groups", {"zero_variance": 0.97}),
        ("no_entropy", {"entropy": 0.004}),
        ("box_whole", {"box_area": 1.0}),
        ("box_whole", {"box_area": 0.5}),
        ("box_tiny", {"box_area": 1 / (2000 * 1500)}),
        ("answer_first", {"answered_before_crop": 0.9}),
        ("logprob_gap", {"logprob_gap": 2.0}),
    ],
)
def test_a_run_that_is_broken_from_its_start_raises_the_alarm_in_its_first_step(code, broken):
    for steps in (1, 2, 5, 10, 40):
        assert alarms([{**HEALTHY, **broken}] * steps) == [code]
    assert code in ALARM_TEXTS


def test_a_tool_rate_that_falls_from_nine_tenths_to_six_hundredths_raises_an_alarm():
    falling = [{**HEALTHY, "tool_rate": 0.9 - 0.84 * min(1, n / 20)} for n in range(30)]
    assert alarms(falling[:15]) == []
    assert alarms(falling) == ["no_tool"]


def test_a_reward_that_rose_and_then_fell_back_to_its_start_is_a_collapse():
    # best window 1.4, now 0.4: a fall of 1.0, more than half of 1.4
    rewards = [0.4] * 10 + [1.4] * 10 + [0.4] * 5
    assert alarms([{**HEALTHY, "reward": reward} for reward in rewards]) == ["reward"]
    # a penalised start: from -0.1 to -1.0
    assert alarms([{**HEALTHY, "reward": r} for r in [-0.1] * 5 + [-1.0] * 5]) == ["reward"]


def test_the_alarms_of_every_limit_have_a_text():
    assert {limit.code for limit in LIMITS} <= set(ALARM_TEXTS)


def test_a_quiet_run_raises_no_alarm():
    for steps in range(41):
        assert alarms(history(40)[:steps]) == []
    assert alarms(history(40, box_area=None)) == []


def test_a_run_that_learns_raises_no_alarm():
    """Rewards and tool rate rise, boxes become smaller, entropy and signal fall, with noise."""
    noise = random.Random(0)
    rows = [
        {
            **HEALTHY,
            "tool_rate": min(1.0, 0.3 + 0.01 * n + noise.uniform(-0.1, 0.1)),
            "reward": 0.3 + 0.012 * n + noise.uniform(-0.2, 0.2),
            "box_area": 0.07 * 0.99**n + noise.uniform(-0.01, 0.01),
            "entropy": 0.8 * 0.99**n,
            "zero_variance": min(1.0, 0.2 + 0.008 * n + noise.uniform(-0.1, 0.1)),
            "malformed": max(0.0, 0.3 - 0.01 * n),
        }
        for n in range(80)
    ]
    assert [alarms(rows[: n + 1]) for n in range(80)] == [[]] * 80


def test_an_episode_with_a_reply_cut_at_the_token_limit_is_counted():
    cut = Turn(Reply("I look at", finish="length"), Malformed(Reason.NO_ACTION, "Error: no."))
    whole = Turn(Reply("7", finish="stop"), Answer("7"))
    numbers = episode_numbers([episode(cut, whole), episode(whole)], [RewardTerms()] * 2)
    assert numbers["truncated"] == 0.5
    assert episode_numbers([episode(answer())], [RewardTerms()])["truncated"] is None


def test_an_answer_written_before_the_crop_is_counted():
    late = tiny.crop_turn(1)
    early = replace(late, reply=Reply(f"It is 7, let me see. {late.reply.text}"))
    numbers = episode_numbers(
        [episode(early, answer("7")), episode(late, answer("7")), episode(answer("7"))],
        [RewardTerms()] * 3,
    )
    assert numbers["answered_before_crop"] == 0.5


def test_presets_differ_from_their_parent_in_the_ablation_alone():
    def difference(a, b):
        return {
            f.name
            for f in fields(TrainConfig)
            if getattr(preset(a), f.name) != getattr(preset(b), f.name)
        }

    assert difference("baseline", "stage1") == {"first_view"}
    assert difference("stage1", "stage1-fixed-budget") == {"first_view"}
    assert difference("stage1", "random-budget") == {"first_view"}
    assert difference("stage1", "stage2") == {"reward"}
    assert difference("stage2", "stage2-easy-data") == set()
    assert difference("baseline", "deepeyes") == {"reward"}
    assert difference("stage1", "stage1-strict") == {"reward"}
    assert difference("stage2", "stage2-strict") == {"reward"}
    assert difference("baseline", "baseline-matched") == set()
    assert difference("baseline", "information") == {"reward"}
    assert difference("stage1", "stage1-information") == {"reward"}
    assert preset("information").reward == RewardConfig(pay="information")
    assert difference("stage2", "stage1-continued") == {"reward"}
    assert preset("stage2-no-l1").reward == replace(preset("stage2").reward, iou_weight=1.0)
    assert preset("stage2-plain-iou").reward == replace(
        preset("stage2").reward, iou_weight=1.0, guarded=False
    )
    assert preset("stage1").reward == RewardConfig()
    assert all(text for text, _ in PRESETS.values())


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"did you mean 'stage2-no-l1'\?.*baseline, stage1"):
        preset("stage2-nol1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"group_size": 1},
        {"steps": 0},
        {"clip": 0.0},
        {"betas": (0.9, 1.0)},
        {"unanswered": "drop"},
        {"advantage_scale": "std"},
        {"temperature": float("nan")},
        {"minibatches": 3},
        {"minibatches": 0},
        {"dynamic_sampling": -1},
        {"seed": -1},
        {"learning_rate": -1.0},
        {"first_view": "small"},
        {"protocol": "gpt"},
        {"crop": CropRules(factor=32)},
    ],
)
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_impossible_adapters_are_refused():
    with pytest.raises(ConfigError, match="rank"):
        LoraConfig(rank=0)
