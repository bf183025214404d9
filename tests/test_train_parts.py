"""Advantages, loss, rows, metrics, alarms, configuration and presets, with numbers worked out by
hand."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from lfpc.boxes import Box
from lfpc.dialogue import Answer, Crop, Malformed, Reply, Turn
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
from lfpc.training.rollouts import rollout_of
from lfpc.training.statistics import ALARM_TEXTS, alarms, episode_numbers, sampling_numbers

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
        numbers = episode_numbers([episode(tiny.crop_turn(1), sample=sample)], [RewardTerms()])
        assert (numbers["iou_last"], numbers["iou_best"]) == (pytest.approx(iou),) * 2


def test_entropy_and_flat_groups_by_hand():
    turn = Turn(Reply("ab", (5, 6), (-1.0, -3.0)), Answer("ab"))
    terms = [RewardTerms(accuracy=a) for a in (1, 1, 1, 0)]
    numbers = sampling_numbers(groups_of([episode(turn)] * 4, terms, size=2))
    assert numbers == {"entropy": 2.0, "policy_tokens": 8.0, "zero_variance": 0.5}


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


def history(steps=10, **late):
    row = {"tool_rate": 0.5, "turns": 2.0, "box_area": 0.1, "grad_norm": 1.0, "logprob_gap": 0.0}
    return [row] * 5 + [{**row, **late}] * (steps - 5)


@pytest.mark.parametrize(
    ("code", "late"),
    [
        ("no_tool", {"tool_rate": 0.01}),
        ("turns", {"turns": 4.0}),
        ("box_grows", {"box_area": 0.3}),
        ("box_shrinks", {"box_area": 0.02}),
        ("no_gradient", {"grad_norm": None}),
        ("logprob_gap", {"logprob_gap": 2.0}),
    ],
)
def test_each_alarm_has_its_cause_and_its_text(code, late):
    assert alarms(history(**late)) == [code]
    assert code in ALARM_TEXTS
    assert alarms(history(**late)[:9]) == []


def test_a_quiet_run_raises_no_alarm():
    assert alarms(history(40)) == []
    assert alarms(history(40, box_area=None)) == []


def test_presets_differ_from_their_parent_in_the_ablation_alone():
    def difference(a, b):
        return {
            f.name
            for f in fields(TrainConfig)
            if getattr(preset(a), f.name) != getattr(preset(b), f.name)
        }

    assert difference("baseline", "stage1") == {"first_view"}
    assert difference("stage1", "stage1-fixed-budget") == {"first_view"}
    assert difference("stage1", "stage2") == {"reward"}
    assert difference("stage2", "stage2-easy-data") == set()
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
        {"temperature": float("nan")},
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
