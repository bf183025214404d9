"""The counts of a training step: what is done is what must be done."""

from dataclasses import replace

import pytest
import tiny
from small_runs import config, early_tokens

from bench.limit import (
    Costs,
    costs_of,
    model_seconds,
    picture_seconds,
    step_limit,
    views_by_file,
)
from bench.profile_step import least_work, lines, measure, metered
from lfpc.policies.qwen.checkpoint import save_checkpoint
from lfpc.rewards import RewardTerms
from lfpc.samples import write_samples
from lfpc.training.draw import Openable
from lfpc.training.fitting import pick_device
from lfpc.training.groups import episodes_of
from lfpc.training.rollouts import rollouts_of
from lfpc.training.trainer import Trainer

pytestmark = pytest.mark.slow


def test_a_step_decodes_cuts_and_encodes_nothing_twice_and_updates_no_flat_group(tmp_path):
    save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path / "init")
    (tmp_path / "data").mkdir()
    samples = [tiny.sample(tmp_path / "data", n, answer=str(n)) for n in range(4)]
    write_samples(samples, tmp_path / "data")
    run = replace(config(tmp_path, tmp_path / "run"), prompts_per_step=4, sample_batch=5)
    flat = samples[0].id

    def reward(episode):
        return RewardTerms() if episode.sample.id == flat else early_tokens(episode)

    trainer = Trainer(run, pick_device(run), 0, reward)
    with metered() as meter:
        numbers, groups = trainer.step(Openable(samples, trainer.first_view).at(range(4)), 1)
    rollouts = rollouts_of(
        episodes_of(groups), trainer.policy.encoder, max_rollout_tokens=run.max_rollout_tokens
    )
    least = least_work(groups, rollouts)
    assert least["decode"] == 4
    assert numbers["trained_rollouts"] <= 9  # of 12: three are flat
    for part in ("decode", "resize", "patches", "tower", "tower, update", "choose"):
        assert meter.units[part] == least[part], part
    assert least["token"] <= meter.units["token"]
    assert least["read"] <= meter.units["read"]
    costs = costs_of(trainer.policy, list(rollouts[0].views), [one.encoded for one in rollouts])
    assert min(costs.view, costs.read, costs.token) > 0
    shown = views_by_file(episodes_of(groups))
    assert sum(map(len, shown.values())) == least["resize"]
    assert len(shown) == 4
    assert step_limit(trainer.policy, groups, rollouts) > 0 < picture_seconds(shown)


def test_the_table_names_every_part_and_shares_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.profile_step.QUESTIONS", 1)
    monkeypatch.setattr("bench.profile_step.GROUP", 2)
    found = measure(tmp_path, 1, 1)
    assert sum(part["share"] for part in found["parts"].values()) == pytest.approx(1)
    assert found["parts"]["decode"]["units"] == found["parts"]["decode"]["least"] == 1
    header = lines(found).partition("\n")[0]
    assert header.split() == ["a", "step", "calls", "units", "least", "ms", "share"]


def test_seconds_at_best_by_hand():
    least = {
        "tower": 5,
        "read": 100,
        "token": 30,
        "tower, update": 2,
        "read, update": 40,
    }
    # 1 s a view, 0.1 s a token read, 0.5 s a token sampled; an update costs three passes
    costs = Costs(view=1.0, read=0.1, token=0.5)
    assert model_seconds(least, costs) == pytest.approx(5 + 6 + 10 + 12 + 15)
