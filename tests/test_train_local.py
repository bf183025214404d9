"""The loop: exact resume, sharing, masks and log-probabilities in the update, a task that must be
learnt."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from small_runs import config, early_tokens
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.utils import logging as transformers_logging

from lfpc.dialogue import Answer, Turn
from lfpc.episode import Episode, Stop
from lfpc.errors import CheckpointError, ConfigError, PictureError, RunError, SampleError
from lfpc.images import CropRules
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.qwen.sums import SUMS_FILE
from lfpc.policies.sampling import Sampling
from lfpc.policies.settings import read_settings
from lfpc.policies.transformers import TransformersPolicy
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL
from lfpc.rewards import RewardTerms
from lfpc.samples import read_samples, write_samples
from lfpc.storage.runs import RunFolder
from lfpc.training import local
from lfpc.training.config import LoraConfig, TrainConfig
from lfpc.training.draw import extra_prompts, first_views, prompts_of_step, training_samples
from lfpc.training.groups import advantages_of, episodes_of
from lfpc.training.local import train
from lfpc.training.rollouts import rollout_of, rollouts_of
from lfpc.training.state import best_checkpoint, checkpoint_folder, saved_steps, settings_of_run
from lfpc.training.update import Learner, micro_batches

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkpoint and a samples folder."""
    folder = tmp_path_factory.mktemp("base")
    save_checkpoint(tiny.model(), tiny.tokenizer(), folder / "init")
    (folder / "data").mkdir()
    write_samples(
        [tiny.sample(folder / "data", n, answer=str(n)) for n in range(5)], folder / "data"
    )
    return folder


def without_times(rows):
    return [
        {key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows
    ]


def weights(folder):
    return AutoModelForImageTextToText.from_pretrained(folder).state_dict()


def test_a_stopped_run_continues_exactly(base, tmp_path, monkeypatch):
    whole = train(
        config(base, tmp_path / "whole", validation=base / "data", validate_every=2),
        progress=False,
        reward=early_tokens,
    )
    stopped = config(base, tmp_path / "stopped", validation=base / "data", validate_every=2)
    steps = local.Trainer.step

    def die_at_four(self, samples, step):
        if step == 4:
            raise KeyboardInterrupt
        return steps(self, samples, step)

    monkeypatch.setattr(local.Trainer, "step", die_at_four)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, progress=False, reward=early_tokens)
    assert saved_steps(stopped.out) == [2]
    assert len(RunFolder(stopped.out).metrics()) == 3  # the line of step 3 is written again
    monkeypatch.undo()
    resumed = train(stopped, progress=False, reward=early_tokens)
    a, b = (without_times(RunFolder(path).metrics()) for path in (tmp_path / "whole", stopped.out))
    assert a == b
    assert [row["step"] for row in b] == [1, 2, 3, 4]
    assert any(row["grad_norm"] for row in b)
    assert b[1]["validation_reward"] is not None
    assert "validation_gain" in b[1]
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(resumed)[name]), name
    assert read_settings(best_checkpoint(stopped.out)) == read_settings(resumed)
    assert read_settings(resumed) is not None


def test_broken_pictures_lose_their_own_samples_and_are_counted(base, tmp_path, caplog):
    data = tmp_path / "data"
    data.mkdir()
    samples = [tiny.sample(data, n, answer=str(n)) for n in range(5)]
    write_samples(samples, data)
    broken = prompts_of_step(5, config(base, tmp_path), 2)[0]  # first drawn in step 2
    picture = samples[broken].image
    picture.write_bytes(picture.read_bytes()[:-40])
    run = config(base, tmp_path / "run", data=data, validation=data, validate_every=2)
    train(run, progress=False, reward=early_tokens)
    rows = RunFolder(run.out).metrics()
    drawn = [prompts_of_step(5, run, step) for step in range(1, 5)]
    assert [row["broken_pictures"] for row in rows] == [places.count(broken) for places in drawn]
    assert sum(row["broken_pictures"] for row in rows) >= 1
    assert caplog.text.count(f"sample {samples[broken].id!r} is skipped") == 2  # and in validation
    assert str(picture) in caplog.text
    for sample in samples:
        sample.image.write_bytes(b"junk")
    with pytest.raises(PictureError, match="none of the 5 pictures opens"):
        train(replace(run, out=tmp_path / "none", validation=None), progress=False)


def test_a_finished_run_is_returned_without_work(base, tmp_path, monkeypatch):
    short = config(base, tmp_path, steps=1)
    folder = train(short, progress=False, reward=early_tokens)
    monkeypatch.setattr(local, "Trainer", None)
    assert train(short, progress=False) == folder == checkpoint_folder(tmp_path, 1)


def test_training_leaves_a_plain_checkpoint_metrics_and_readable_episodes(base, tmp_path):
    folder = train(
        config(base, tmp_path, steps=1, log_episodes=3), progress=False, reward=early_tokens
    )
    assert AutoModelForImageTextToText.from_pretrained(folder).config.model_type == "qwen2_5_vl"
    assert AutoTokenizer.from_pretrained(folder).chat_template == tiny.tokenizer().chat_template
    assert "image_mean" in json.loads((folder / "preprocessor_config.json").read_text())
    settings = read_settings(folder)
    assert settings is not None
    assert (settings.max_turns, settings.max_new_tokens, settings.small_budget) == (2, 5, 12)
    assert settings.crop == CropRules(min_tokens=4, max_tokens=16)
    run = RunFolder(tmp_path)
    assert list(run.episodes()) == ["1/0/0", "1/0/1", "1/1/0"]
    (row,) = run.metrics()
    wanted = (
        "reward reward_std reward_accuracy accuracy tool_rate turns malformed box_area "
        "answered_before_crop unanswered "
        "iou_last iou_best zero_variance entropy"
    )
    wanted += (
        " ratio_clip_share grad_norm loss policy_tokens vision_passes logprob_gap overlong "
        "seconds seconds_play seconds_update alarms"
    )
    assert set(wanted.split()) <= set(row)
    assert row["logprob_gap"] < 1e-5
    assert any((tmp_path / "tensorboard").iterdir())


def rollouts(policy, contexts):
    """Finished episodes of one reply each."""
    replies = policy.reply(contexts)
    sample = tiny.Sample(id="s", image=Path("none.png"), question="What mark?", answer="7")
    return [
        Episode(sample, c.first_view, (*c.turns, Turn(r, Answer("7"))), Stop.ANSWERED)
        for c, r in zip(contexts, replies, strict=True)
    ]


def learner(share=True, **changes):
    policy = TransformersPolicy(
        tiny.model(),
        tiny.tokenizer(),
        QWEN2_5_VL,
        sampling=Sampling(temperature=1, max_new_tokens=6),
        share=share,
    )
    return Learner(policy, TrainConfig(share=share, learning_rate=1e-3, **changes))


def some_rows(made):
    first = tiny.view(0)
    other = tiny.view(1, 84, 112)
    contexts = [tiny.context("What mark?", first)] * 3
    contexts += [tiny.context("What mark?", other, tiny.crop_turn(n, width=28 * n)) for n in (1, 2)]
    return [
        rollout_of(episode, made.policy.encoder, max_rollout_tokens=1000)
        for episode in rollouts(made.policy, contexts)
    ]


ADVANTAGES = [1.0, -0.5, -0.5, 1.0, -1.0]


def gradients(made, rows):
    """The gradients of one update, which the optimiser is kept from using."""
    kept = {}
    made.optimizer.step = lambda: kept.update(
        {name: w.grad.clone() for name, w in made.model.named_parameters() if w.grad is not None}
    )
    report = made.update(rows, ADVANTAGES, step=1)
    return kept, report


@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean"])
def test_sharing_and_micro_batches_change_no_gradient(aggregation):
    made = learner(aggregation=aggregation)
    rows = some_rows(made)
    shared, report = gradients(made, rows)
    passes = made.policy.views.count.pictures
    assert report.trained_rollouts == 5
    plain = learner(share=False, aggregation=aggregation)
    unshared, other = gradients(plain, rows)
    small, third = gradients(learner(aggregation=aggregation, micro_batch=2), rows)
    assert plain.policy.views.count.pictures > passes / 2
    for name, gradient in shared.items():
        assert torch.allclose(gradient, unshared[name], atol=1e-5), name
        assert torch.allclose(gradient, small[name], atol=1e-5), name
    assert report.loss == pytest.approx(other.loss, abs=1e-6) == pytest.approx(third.loss, abs=1e-6)
    assert set(shared) == {name for name, _ in made.model.named_parameters()}


def test_the_update_passes_each_distinct_picture_once():
    made = learner()
    rows = some_rows(made)
    before = made.policy.views.count.pictures
    made.update(rows, ADVANTAGES, step=1)
    assert made.policy.views.count.pictures - before == 4  # two first views, two crops


def test_log_probabilities_of_the_update_are_those_of_sampling():
    made = learner()
    rows = some_rows(made)
    trained = [
        row for row in rows if len(row.encoded.replies) == 1
    ]  # the crop turns of the others are made up
    features = [made.policy.views.features(row.views) for row in trained]
    now = made.logprobs(trained, features, {}).detach().numpy()
    assert np.abs(now - np.concatenate([row.logprobs for row in trained])).max() < 1e-5


def test_one_dimensional_positions_would_be_noticed():
    made = learner()
    rows = some_rows(made)[:3]
    features = [made.policy.views.features(row.views) for row in rows]
    for row in rows:
        row.encoded.positions[:] = np.arange(len(row.encoded.ids))
    now = made.logprobs(rows, features, {}).detach().numpy()
    assert np.abs(now - np.concatenate([row.logprobs for row in rows])).max() > 1e-4


def test_a_step_in_which_all_rollouts_earn_the_same_changes_nothing():
    made = learner(weight_decay=0.1)
    before = {name: weight.clone() for name, weight in made.model.state_dict().items()}
    report = made.update(some_rows(made), [0.0] * 5, step=1)
    assert report.grad_norm is None
    assert all(
        torch.equal(before[name], weight) for name, weight in made.model.state_dict().items()
    )


def test_a_frozen_vision_tower_gets_no_gradient_and_the_rest_the_same(base, tmp_path):
    frozen = train(
        config(base, tmp_path, steps=1, freeze_vision=True), progress=False, reward=early_tokens
    )
    before = weights(base / "init")
    after = weights(frozen)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("visual" in name for name in changed)


def test_micro_batches_keep_the_rollouts_of_a_question_together():
    made = learner()
    rows = some_rows(made)
    assert list(micro_batches(rows, [0, 3, 1, 4], 2)) == [[0, 1], [3, 4]]


def test_a_rewarded_letter_is_learnt(base, tmp_path):
    """A bandit: one token is written, and the reward says whether it is one of a few that the
    untrained policy writes at times."""

    one_token = {"max_turns": 1, "max_new_tokens": 1, "learning_rate": 3e-3, "save_every": 100}
    likely = config(base, tmp_path, steps=30, prompts_per_step=4, group_size=8, **one_token)
    with torch.no_grad():
        model = tiny.model()
        policy = TransformersPolicy(
            model,
            tiny.tokenizer(),
            QWEN2_5_VL,
            sampling=Sampling(temperature=1, max_new_tokens=1),
            generator=torch.Generator().manual_seed(0),
        )
        firsts = [
            r.token_ids[0]
            for r in policy.reply(
                [tiny.context("What mark is on the red kite?", tiny.view(9))] * 64
            )
        ]
    wanted = set(firsts[::4])

    def reward(episode):
        return RewardTerms(accuracy=float(episode.turns[0].reply.token_ids[0] in wanted))

    train(likely, progress=False, reward=reward)
    rewards = [row["reward"] for row in RunFolder(tmp_path).metrics()]
    assert np.mean(rewards[-5:]) > 0.9
    assert np.mean(rewards[-5:]) > np.mean(rewards[:3]) + 0.3


def test_lora_trains_adapters_resumes_and_saves_them_alone(base, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    lora = LoraConfig(rank=4, alpha=8)
    whole = train(config(base, tmp_path / "whole", lora=lora), progress=False, reward=early_tokens)
    steps = local.Trainer.step
    monkeypatch.setattr(
        local.Trainer,
        "step",
        lambda self, s, n: steps(self, s, n) if n < 3 else (_ for _ in ()).throw(KeyboardInterrupt),
    )
    stopped = config(base, tmp_path / "stopped", lora=lora)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, progress=False, reward=early_tokens)
    monkeypatch.undo()
    resumed = train(stopped, progress=False, reward=early_tokens)
    assert without_times(RunFolder(tmp_path / "whole").metrics()) == without_times(
        RunFolder(stopped.out).metrics()
    )
    before, a, b = (load_checkpoint(f)[0].state_dict() for f in (base / "init", whole, resumed))
    assert set(a) == set(before)
    assert all(torch.equal(a[name], b[name]) for name in a)
    changed = {name for name in a if not torch.equal(a[name], before[name])}
    assert changed
    assert all(".language_model.layers." in name for name in changed)
    assert not (whole / "model.safetensors").exists()


def test_bfloat16_trains_float32_weights_with_log_probabilities_close_to_those_of_sampling(
    base, tmp_path
):
    folder = train(
        config(base, tmp_path, steps=1, dtype="bfloat16"), progress=False, reward=early_tokens
    )
    (row,) = RunFolder(tmp_path).metrics()
    assert row["grad_norm"] is not None
    assert row["logprob_gap"] < 0.1
    assert {weight.dtype for weight in weights(folder).values()} == {torch.float32}


def test_a_disk_that_refuses_is_said_in_one_sentence_and_the_old_checkpoint_stays(
    tmp_path, monkeypatch
):
    folder = save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path / "saved")
    model = tiny.model()

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(model, tiny.tokenizer(), folder)
    assert load_checkpoint(folder)[0] is not None
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_every_sample_comes_once_an_epoch_in_an_order_that_the_seed_decides():
    run = TrainConfig(prompts_per_step=3)
    drawn = [n for step in range(1, 6) for n in prompts_of_step(5, run, step)]
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == sorted(drawn[10:]) == list(range(5))
    assert drawn == [n for step in range(1, 6) for n in prompts_of_step(5, run, step)]
    assert drawn != [
        n for step in range(1, 6) for n in prompts_of_step(5, replace(run, seed=1), step)
    ]


def test_the_first_view_follows_the_configuration(base):
    sample = tiny.sample(
        base / "data", 0
    )  # 280 x 224 pixels: 80 visual tokens; its own budget is 12
    tokens = {}
    for name in ("selected", "original", "fixed"):
        width, height = first_views(TrainConfig(first_view=name, fixed_budget=30))(sample).size
        tokens[name] = width * height // 28**2
    assert tokens["original"] == 80
    assert tokens["selected"] <= 12 < tokens["fixed"] <= 30


def test_a_checkpoint_names_the_budgets_of_its_training(base):
    samples = [tiny.sample(base / "data", n, budget=(9, 16, 12, 9, 16)[n]) for n in range(5)]
    run = TrainConfig(fixed_budget=30, original_budget=80)
    budgets = {
        name: settings_of_run(replace(run, first_view=name), samples)
        for name in ("selected", "random", "fixed", "original")
    }
    assert {name: found.small_budget for name, found in budgets.items()} == {
        "selected": 9,  # as frequent as 16, and smaller
        "random": 9,
        "fixed": 30,
        "original": None,
    }
    assert {found.full_budget for found in budgets.values()} == {80}
    assert [found.first_view for found in budgets.values()] == list(budgets)


def test_random_budgets_are_the_selected_ones_dealt_by_the_seed(tmp_path):
    budgets = [9, 9, 12, 16, 25, 25, 36, 49]
    samples = [tiny.sample(tmp_path, n, budget=budget) for n, budget in enumerate(budgets)]
    write_samples(samples, tmp_path)

    def dealt(seed):
        run = TrainConfig(first_view="random", seed=seed)
        return [sample.budget for sample in training_samples(tmp_path, run)]

    assert sorted(dealt(0)) == sorted(dealt(1)) == budgets
    assert dealt(0) == dealt(0) != dealt(1)
    assert [s.budget for s in training_samples(tmp_path, TrainConfig())] == budgets


def test_a_grounding_reward_without_a_box_is_said_to_pay_nothing(tmp_path, caplog):
    run = TrainConfig(reward=replace(TrainConfig().reward, grounding=1.0))
    write_samples([replace(tiny.sample(tmp_path, 0), boxes=())], tmp_path)
    training_samples(tmp_path, run)
    assert "no sample has truth boxes, so the grounding reward pays nothing" in caplog.text
    caplog.clear()
    training_samples(tmp_path, TrainConfig())
    assert not caplog.text


def test_what_a_run_lacks_is_said_before_it_starts(base, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write_samples([tiny.sample(data, 0, budget=None)], data)
    with pytest.raises(SampleError, match="no 'budget'"):
        train(config(base, tmp_path / "run", data=data))
    (data / "0.png").unlink()
    with pytest.raises(PictureError, match=r"0\.png"):
        train(config(base, tmp_path / "run", data=data, first_view="original"))
    with pytest.raises(CheckpointError, match=r"nothing: no such folder"):
        train(config(base, tmp_path / "run2", init=tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="device"):
        train(config(base, tmp_path / "run", device="nowhere"))


def test_a_checkpoint_of_another_architecture_is_named(base, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match=r"'llama'.*qwen2_5_vl"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("transformers_bars", [True, False])
@pytest.mark.parametrize("hub_bars", [True, False])
def test_progress_bars_are_as_before_once_a_checkpoint_is_saved_or_loaded(
    tmp_path, capsys, transformers_bars, hub_bars
):
    def bars():
        return transformers_logging.is_progress_bar_enabled(), not are_progress_bars_disabled()

    found = bars()
    try:
        transformers_logging.enable_progress_bar()
        if not transformers_bars:
            transformers_logging.disable_progress_bar()
        (enable_progress_bars if hub_bars else disable_progress_bars)()
        wanted = bars()
        assert wanted == (transformers_bars, hub_bars)
        folder = save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path / "saved")
        assert bars() == wanted
        load_checkpoint(folder)
        assert bars() == wanted
        (folder / "model.safetensors").write_bytes(b"broken")
        with pytest.raises(CheckpointError):
            load_checkpoint(folder)
        assert bars() == wanted
    finally:
        transformers_logging.enable_progress_bar()
        if not found[0]:
            transformers_logging.disable_progress_bar()
        (enable_progress_bars if found[1] else disable_progress_bars)()
    assert "%|" not in capsys.readouterr().err  # no bar was drawn


def test_a_damaged_checkpoint_is_refused(base, tmp_path):
    folder = save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path / "saved")
    model, _ = load_checkpoint(folder)
    assert torch.equal(model.lm_head.weight, tiny.model().lm_head.weight)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_checkpoint(folder)


def test_a_checkpoint_with_a_missing_weight_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path / "saved")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(name for name in tensors if "layers.0" in name))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="missing from the folder"):
        load_checkpoint(folder)


def test_a_run_goes_on_when_it_was_moved_and_its_init_is_gone(base, tmp_path):
    shutil.copytree(base / "init", tmp_path / "init")
    processor = tmp_path / "init/preprocessor_config.json"
    processor.write_text(json.dumps(json.loads(processor.read_text()) | {"max_pixels": 12_345_678}))
    (tmp_path / "init" / SUMS_FILE).unlink()
    shutil.copytree(base / "data", tmp_path / "data")
    first = config(tmp_path, tmp_path / "out", steps=2)
    train(first, progress=False, reward=early_tokens)
    shutil.rmtree(tmp_path / "init")
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "out").rename(tmp_path / "renamed")
    moved = {"data": tmp_path / "moved", "out": tmp_path / "renamed"}
    last = train(replace(first, steps=3, **moved), progress=False, reward=early_tokens)
    assert [row["step"] for row in RunFolder(moved["out"]).metrics()] == [1, 2, 3]
    found = json.loads((last / "preprocessor_config.json").read_text())
    assert found["max_pixels"] == 12_345_678
    with pytest.raises(CheckpointError, match=r"no such folder"):
        train(replace(first, out=tmp_path / "new", data=moved["data"]), progress=False)
    assert not (tmp_path / "new").exists()


def test_adapters_are_not_put_on_other_base_weights(base, tmp_path):
    pytest.importorskip("peft")
    shutil.copytree(base / "init", tmp_path / "init")
    lora = config(base, tmp_path / "out", steps=1, lora=LoraConfig(rank=4, alpha=8))
    lora = replace(lora, init=tmp_path / "init")
    train(lora, progress=False, reward=early_tokens)
    save_checkpoint(tiny.model(seed=1), tiny.tokenizer(), tmp_path / "init")
    with pytest.raises(RunError, match="the weights of the existing run had the hash"):
        train(replace(lora, steps=2), progress=False, reward=early_tokens)


def test_the_line_of_a_step_tells_the_time_left(capsys):
    history = [{"reward": 0.5, "accuracy": 0.25, "tool_rate": 1.0, "seconds": s} for s in (2, 4)]
    local._show(tqdm(disable=True), history, 2, 40, progress=True)
    assert capsys.readouterr().err == (
        "step 2/40 reward 0.50 accuracy 0.25 tool_rate 1.00 seconds 4.00, 01:54 left\n"
    )


def one_step(base, out, **changes):
    """A trainer that made one step, its metrics and its groups; rewards differ within groups."""

    def token_sum(episode):
        return RewardTerms(accuracy=float(sum(episode.turns[0].reply.token_ids)))

    run = config(base, out, prompts_per_step=4, **changes)
    trainer = local.Trainer(run, local.pick_device(run), 0, token_sum)
    samples = read_samples(base / "data")[:4]
    return trainer, *trainer.step(samples, 1)


def test_two_minibatches_are_two_updates_with_the_log_probabilities_of_sampling(base, tmp_path):
    trainer, numbers, groups = one_step(base, tmp_path, minibatches=2)
    by_hand, _, _ = one_step(base, tmp_path, learning_rate=0.0)  # plays the same, moves nothing
    by_hand.learner = Learner(by_hand.policy, trainer.config)
    rows = rollouts_of(
        episodes_of(groups),
        by_hand.policy.encoder,
        max_rollout_tokens=trainer.config.max_rollout_tokens,
    )
    advantages = advantages_of(groups)
    first = by_hand.learner.update(rows[:6], advantages[:6], step=1)
    second_rows = [row for row, a in zip(rows[6:], advantages[6:], strict=True) if a]
    with torch.no_grad():
        features = [by_hand.policy.views.features(row.views) for row in second_rows]
        now = by_hand.learner.logprobs(second_rows, features, {}).numpy()
    gaps = now - np.concatenate([row.logprobs for row in second_rows])
    assert np.abs(gaps).max() > 1e-3  # the first update moved the policy: ratios are not 1
    per_token = np.concatenate(
        [[a] * len(r.logprobs) for r, a in zip(rows[6:], advantages[6:], strict=True) if a]
    )
    ratio = np.exp(gaps)
    weight = 1 / sum(len(row.logprobs) for row in rows[6:])
    loss = -np.minimum(ratio * per_token, np.clip(ratio, 0.8, 1.2) * per_token).sum() * weight
    second = by_hand.learner.update(rows[6:], advantages[6:], step=1)
    assert second.loss == pytest.approx(loss, abs=1e-5)
    assert numbers["loss"] == pytest.approx((first.loss + second.loss) / 2)
    assert numbers["logprob_gap"] == first.logprob_gap < 1e-4
    assert numbers["trained_rollouts"] == first.trained_rollouts + second.trained_rollouts
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, by_hand.model.state_dict()[name]), name


def test_one_minibatch_is_one_update_of_all_rollouts(base, tmp_path):
    trainer, numbers, groups = one_step(base, tmp_path)
    by_hand, _, _ = one_step(base, tmp_path, learning_rate=0.0)
    by_hand.learner = Learner(by_hand.policy, trainer.config)
    rows = rollouts_of(
        episodes_of(groups),
        by_hand.policy.encoder,
        max_rollout_tokens=trainer.config.max_rollout_tokens,
    )
    report = by_hand.learner.update(rows, advantages_of(groups), step=1)
    assert (numbers["loss"], numbers["grad_norm"]) == (report.loss, report.grad_norm)
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, by_hand.model.state_dict()[name]), name


def flat_for(*ids):
    """A reward that is equal for all rollouts of these samples."""

    def reward(episode):
        flat = episode.sample.id in ids
        return RewardTerms() if flat else early_tokens(episode)

    return reward


def test_groups_without_a_signal_are_replaced_by_further_samples(base, tmp_path):
    run = config(base, tmp_path, dynamic_sampling=3)
    samples = read_samples(base / "data")
    flat = flat_for("s0", "s2")
    trainer = local.Trainer(run, local.pick_device(run), 0, flat)
    asked = []

    def further(step, start, count):
        asked.append((step, start, count))
        return samples[2:][start : start + count]

    trainer.further = further
    numbers, groups = trainer.step(samples[:2], 7)
    # s0 is flat, and so is its first replacement, s2
    assert asked == [(7, 0, 1), (7, 1, 1)]  # no third round: nothing is left to replace
    assert [group.sample.id for group in groups] == ["s3", "s1"]
    assert all(group.has_signal for group in groups)
    assert numbers["extra_questions"] == 2
    assert numbers["zero_variance"] == 0.5  # of the four groups that were played
    assert numbers["trained_rollouts"] == sum(a != 0 for a in advantages_of(groups))


def test_extra_rounds_are_bounded_and_the_batch_keeps_its_size(base, tmp_path):
    run = config(base, tmp_path, dynamic_sampling=1)
    samples = read_samples(base / "data")
    trainer = local.Trainer(run, local.pick_device(run), 0, flat_for("s0", "s1", "s2"))
    trainer.further = lambda step, start, count: samples[2:][start : start + count]
    numbers, groups = trainer.step(samples[:2], 1)
    assert [group.sample.id for group in groups] == ["s3", "s1"]
    assert numbers["extra_questions"] == 2
    plain = local.Trainer(replace(run, dynamic_sampling=0), torch.device("cpu"), 0, flat_for("s0"))
    assert "extra_questions" not in plain.step(samples[:2], 1)[0]


def test_the_further_samples_of_a_step_are_its_own_and_none_twice(base):
    run = config(base, Path("out"))
    places = [extra_prompts(50, run, step) for step in (1, 2, 1)]
    assert places[0] == places[2] != places[1]
    assert sorted([*places[0], *prompts_of_step(50, run, 1)]) == list(range(50))


@pytest.mark.long  # test_a_stopped_run_continues_exactly, with more options
def test_a_stopped_run_with_dynamic_sampling_and_minibatches_continues_exactly(
    base, tmp_path, monkeypatch
):
    changes = {"dynamic_sampling": 2, "minibatches": 2, "steps": 2, "save_every": 1}
    reward = flat_for("s0", "s1", "s2")
    whole = train(config(base, tmp_path / "a", **changes), progress=False, reward=reward)
    stopped = config(base, tmp_path / "b", **changes)
    resumed = tiny.train_in_two_parts(stopped, reward, monkeypatch)
    a, b = (without_times(RunFolder(tmp_path / name).metrics()) for name in "ab")
    assert a == b
    assert sum(row["extra_questions"] for row in a) > 0
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(resumed)[name]), name


def test_broken_pictures_among_the_further_samples_are_counted(base, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    samples = [tiny.sample(data, n, answer=str(n)) for n in range(8)]
    write_samples(samples, data)
    run = config(base, tmp_path / "run", data=data, steps=2, dynamic_sampling=1)
    broken = extra_prompts(8, run, 1)[0]
    samples[broken].image.write_bytes(samples[broken].image.read_bytes()[:-40])
    train(run, progress=False, reward=lambda episode: RewardTerms())
    drawn = [[*prompts_of_step(8, run, s), *extra_prompts(8, run, s)] for s in (1, 2)]
    counts = [row["broken_pictures"] for row in RunFolder(run.out).metrics()]
    assert counts[0] == 1
    assert counts[1] == (drawn[1].index(broken) <= 2 * run.prompts_per_step)


@pytest.mark.parametrize("step", [2, 4])
def test_a_failure_in_validation_loses_no_step_and_is_made_up_for(base, tmp_path, step):
    """The judge fails while a step is validated: the same command validates it and goes on."""
    changes = {"validation": base / "data", "validate_every": 2, "save_every": 4}
    run = config(base, tmp_path / "run", **changes)
    paid = []

    def reward(episode):
        paid.append(episode)
        validated = len(read_samples(base / "data")) * (step // 2 - 1)
        if len(paid) > step * run.prompts_per_step * run.group_size + validated:
            raise RunError("the judge is down")
        return early_tokens(episode)

    with pytest.raises(RunError, match="the judge is down"):
        train(run, progress=False, reward=reward)
    assert saved_steps(run.out) == [step]
    assert "validation_reward" not in RunFolder(run.out).metrics()[-1]
    train(run, progress=False, reward=early_tokens)
    whole = config(base, tmp_path / "whole", **changes)
    train(whole, progress=False, reward=early_tokens)
    a, b = (without_times(RunFolder(one.out).metrics()) for one in (run, whole))
    assert a == b
    for at in (lambda one: checkpoint_folder(one.out, 4), lambda one: best_checkpoint(one.out)):
        x, y = weights(at(run)), weights(at(whole))
        assert all(torch.equal(x[name], y[name]) for name in y)


def test_a_failure_while_episodes_are_played_loses_no_finished_step(base, tmp_path):
    run = config(base, tmp_path / "run", steps=3, save_every=3)
    paid = []

    def reward(episode):
        paid.append(episode)
        if len(paid) > 2 * run.prompts_per_step * run.group_size:
            raise RunError("the judge is down")
        return early_tokens(episode)

    with pytest.raises(RunError, match="the judge is down"):
        train(run, progress=False, reward=reward)
    assert saved_steps(run.out) == [2]
    train(run, progress=False, reward=early_tokens)
    whole = config(base, tmp_path / "whole", steps=3, save_every=3)
    train(whole, progress=False, reward=early_tokens)
    a, b = (weights(checkpoint_folder(one.out, 3)) for one in (run, whole))
    assert all(torch.equal(a[name], b[name]) for name in b)
