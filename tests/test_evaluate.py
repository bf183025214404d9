import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from lfpc.boxes import Box
from lfpc.dialogue import Reply
from lfpc.errors import RunError, SampleError
from lfpc.evaluate.probes import PROBES, accuracy_drop, derangement, probe_differences
from lfpc.evaluate.results import budget_histogram, comparisons, demo_results
from lfpc.evaluate.run import evaluate
from lfpc.images import CropRules, open_picture
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.rewards import RewardConfig, episode_reward
from lfpc.samples import Sample
from lfpc.storage.runs import Kind, RunFolder

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
RULES = CropRules(min_tokens=1, max_tokens=16)
RED = (255, 0, 0)
BLUE = (0, 0, 255)
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, '
    "28]}}</tool_call>"
)


@dataclass(frozen=True)
class Config:
    name: str = "test"


@pytest.fixture
def samples(tmp_path):
    """Ten pictures of one colour each: even ones red, odd ones blue."""
    found = []
    for i in range(10):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (112, 112), BLUE if i % 2 else RED).save(path)
        box = (Box(0, 0, 0.5, 0.5),)
        found.append(
            Sample(
                id=f"s{i}",
                image=path,
                question="Colour?",
                answer="blue" if i % 2 else "red",
                boxes=(box,),
                category="colour",
            )
        )
    open_picture.cache_clear()
    return found


def colour(view):
    r, _, b = np.asarray(view.image).reshape(-1, 3).mean(0)
    return "red" if r > 200 and b < 50 else "blue" if b > 200 and r < 50 else "unclear"


def look_then_say(context):
    """Crops once, then names the colour of the crop."""
    if not context.turns:
        return CALL
    view = context.turns[-1].view
    return f"<answer>{'nothing' if view is None else colour(view)}</answer>"


def say_at_once(context):
    return f"<answer>{colour(context.first_view)}</answer>"


class Counting:
    """Counts the questions asked; fails on those that `fails` names."""

    def __init__(self, script, fails=lambda context: False):
        self.script = script
        self.fails = fails
        self.asked = 0

    def reply(self, contexts):
        if any(map(self.fails, contexts)):
            raise RuntimeError("out of memory")
        self.asked += sum(not context.turns for context in contexts)
        return [Reply(self.script(context)) for context in contexts]


def run_folder(tmp_path, name="run"):
    return RunFolder.open(tmp_path / name, Kind.EVALUATION, Config())


def rows_of(tmp_path, samples, policy, probe="own", name="run", **options):
    settings = {
        "protocol": PROTOCOL,
        "budget": 16,
        "look": PROBES[probe](samples, RULES, 0),
        "progress": False,
        **options,
    }
    return evaluate(samples, policy, run=run_folder(tmp_path, name), **settings)


def test_rows_hold_the_episode_and_its_facts(tmp_path, samples):
    def reward(episode):
        return episode_reward(episode, RewardConfig())

    rows = rows_of(
        tmp_path, samples, ScriptedPolicy(look_then_say), batch=4, extra={"arm": "x"}, reward=reward
    )
    assert [row["sample"] for row in rows] == [sample.id for sample in samples]
    first = rows[0]
    assert first["correct"]
    assert first["arm"] == "x"
    assert first["reward"]["total"] == 1.5
    # 112 x 112 at 16 tokens is shown as it is; 28 of 112 pixels are a quarter, its crop is one
    # token
    assert (first["first_view"], first["visual_tokens"], first["crop_area"]) == (
        [112, 112],
        17,
        1 / 16,
    )
    assert first["iou"] == pytest.approx(1 / 4)
    assert first["seconds"] > 0
    assert list(run_folder(tmp_path).episodes()) == [sample.id for sample in samples]


def test_a_sample_without_the_callers_budget_is_shown_at_its_own(tmp_path, samples):

    small = [dataclasses.replace(samples[0], budget=4)]
    assert rows_of(tmp_path, small, ScriptedPolicy(say_at_once), budget=None)[0]["first_view"] == [
        56,
        56,
    ]


def test_a_resumed_evaluation_asks_only_what_is_missing(tmp_path, samples):
    rows_of(tmp_path, samples[:6], ScriptedPolicy(say_at_once))
    policy = Counting(say_at_once)
    rows = rows_of(tmp_path, samples, policy)
    assert policy.asked == 4
    assert all(row["correct"] for row in rows)
    assert len((tmp_path / "run" / "episodes.jsonl").read_text().splitlines()) == 10


def test_a_broken_picture_loses_one_question_and_is_tried_again(tmp_path, samples):
    whole = samples[3].image.read_bytes()
    samples[3].image.write_bytes(whole[:40])
    rows = rows_of(tmp_path, samples, ScriptedPolicy(say_at_once))
    assert [row["sample"] for row in rows if "error" in row] == ["s3"]
    assert str(samples[3].image) in rows[3]["error"]
    assert not rows[3]["correct"]
    samples[3].image.write_bytes(whole)
    policy = Counting(say_at_once)
    rows = rows_of(tmp_path, samples, policy)
    assert policy.asked == 1
    assert rows[3]["correct"]


def test_a_question_that_breaks_the_policy_does_not_take_its_batch_with_it(
    tmp_path, samples, caplog
):
    policy = Counting(
        say_at_once,
        fails=lambda context: colour(context.first_view) == "red" and context.question == "Which?",
    )

    samples[2] = dataclasses.replace(samples[2], question="Which?")
    rows = rows_of(tmp_path, samples, policy)
    assert [row.get("error") for row in rows if "error" in row] == ["RuntimeError: out of memory"]
    assert sum(row["correct"] for row in rows) == 9
    assert "one by one" in caplog.text


def test_a_policy_that_always_fails_ends_the_run_with_its_reason(tmp_path, samples):
    policy = Counting(say_at_once, fails=lambda context: True)
    with pytest.raises(RunError, match="out of memory"):
        rows_of(tmp_path, samples, policy, max_failures=3)
    assert len(run_folder(tmp_path).episodes()) == 10


def test_progress_elsewhere_than_on_a_terminal_is_a_line(tmp_path, samples, capsys):
    rows_of(tmp_path, samples, ScriptedPolicy(say_at_once), progress=True, label="baseline small")
    assert "baseline small: 10 of 10 questions" in capsys.readouterr().err


def test_every_probe_shows_what_its_name_says(samples):
    sample = samples[0]
    box = Box(0, 0, 0.5, 0.5)
    shown = {name: make(samples, RULES, 0)(sample, box) for name, make in PROBES.items()}
    assert colour(shown["own"]) == colour(shown["truth"]) == "red"
    assert colour(shown["noise"]) == "unclear"
    assert shown["noise"].size == shown["own"].size
    assert shown["none"] is None
    assert shown["other"].region == box


def test_every_picture_is_answered_by_another_one(samples):

    twin = dataclasses.replace(samples[0], id="twin")  # a second question about the first picture
    other = derangement([*samples, twin], seed=3)
    assert all(other(sample).image != sample.image for sample in [*samples, twin])
    assert len({other(sample).image for sample in samples}) == len(samples)
    assert [other(s).id for s in samples] == [
        derangement([*samples, twin], seed=3)(s).id for s in samples
    ]
    with pytest.raises(SampleError, match="at least 2 pictures"):
        derangement([samples[0], twin], seed=0)


def test_noise_costs_only_the_policy_that_looks(tmp_path, samples):
    looking = ScriptedPolicy(look_then_say)
    blind = ScriptedPolicy(say_at_once)
    own = rows_of(tmp_path, samples, looking, name="a")
    noise = rows_of(tmp_path, samples, looking, "noise", name="b")
    none = rows_of(tmp_path, samples, looking, "none", name="c")
    assert accuracy_drop(own, noise).delta == accuracy_drop(own, none).delta == 1
    blind_own = rows_of(tmp_path, samples, blind, name="d")
    blind_noise = rows_of(tmp_path, samples, blind, "noise", name="e")
    found = probe_differences(blind_own, blind_noise, own)
    assert found["all"]["delta"] == 0
    assert found["tool"]["n"] == 0
    assert found["tool"]["delta"] is None
    assert found["base_all"]["delta"] == 0


def fake_rows(right, *, seed=0, **facts):
    defaults = {
        "tool": True,
        "iou": 0.5,
        "crop_area": 0.2,
        "visual_tokens": 20,
        "boxes": [[[0, 0, 1, 1]]],
        "seconds": 0.5,
        "method": "text",
    }
    return [
        {"sample": f"q{i}", "correct": bool(value), "category": "c", **defaults, **facts}
        for i, value in enumerate(right)
    ]


@pytest.fixture
def all_rows():
    rows = {}
    for seed in (0, 1):
        rows["baseline", "small", "own", seed] = fake_rows([1, 1, 0, 0, 0, 0, 1, 0])
        rows["baseline", "small", "noise", seed] = fake_rows([1, 1, 0, 0, 0, 0, 0, 0])
        rows["baseline", "full", "own", seed] = fake_rows(
            [1, 1, 1, 1, 1, 0, 1, 0], visual_tokens=200, seconds=2.0
        )
        rows["stage1", "small", "own", seed] = fake_rows([1, 1, 1, 1, 0, 0, 1, 0])
        rows["stage1", "small", "noise", seed] = fake_rows([1, 0, 0, 0, 0, 0, 0, 0])
        rows["stage1", "small", "repeat", seed] = fake_rows([1, 1, 1, 1, 0, 0, 1, 0])
        rows["stage2", "small", "own", seed] = fake_rows(
            [1, 1, 1, 1, 1, 0, 1, 0], iou=0.7, crop_area=0.1
        )
    return rows


def test_demo_results_have_the_promised_shape(all_rows):
    results = demo_results(all_rows, {("stage2", "small"): 0.25})
    assert (results["questions"], results["seeds"]) == (8, [0, 1])
    stage1 = results["arms"]["stage1"]["small"]
    assert stage1["accuracy"] == 5 / 8
    assert stage1["noise_drop"] == 4 / 8
    low, high = stage1["noise_drop_ci"]
    assert 0 < low < 0.5 < high < 1
    assert stage1["base_vs_base"]["delta"] == 0
    assert stage1["probes"]["noise"]["base_all"]["delta"] == 0
    assert stage1["seconds_per_question"] == 0.5
    assert stage1["accuracy_by_seed"] == {"0": 5 / 8, "1": 5 / 8}
    assert results["arms"]["stage2"]["small"]["seconds_per_question"] == 0.25
    assert results["arms"]["stage2"]["small"]["noise_drop"] is None
    promised = {
        "accuracy",
        "accuracy_ci",
        "noise_drop",
        "noise_drop_ci",
        "iou",
        "crop_area",
        "visual_tokens",
        "seconds_per_question",
    }
    assert promised <= set(results["arms"]["baseline"]["full"])


def test_a_second_seed_does_not_narrow_an_interval_over_questions(all_rows):
    one = demo_results({key: rows for key, rows in all_rows.items() if key[3] == 0})["arms"][
        "stage1"
    ]["small"]
    two = demo_results(all_rows)["arms"]["stage1"]["small"]
    assert two["noise_drop_ci"] == pytest.approx(one["noise_drop_ci"])
    assert two["accuracy_ci"][1] - two["accuracy_ci"][0] == pytest.approx(
        one["accuracy_ci"][1] - one["accuracy_ci"][0], rel=0.06
    )


def test_planned_comparisons_are_paired_and_adjusted(all_rows):
    found = comparisons(all_rows, {("stage2", "small"): 0.25, ("baseline", "full"): 2.0})
    by_name = {(row["name"], row["metric"]): row for row in found["differences"]}
    drop = by_name["stage1 small - baseline small", "noise_drop"]
    assert drop["delta"] == pytest.approx(4 / 8 - 1 / 8)
    assert (drop["n"], drop["clusters"]) == (16, 8)
    assert by_name["stage2 small - stage1 small", "iou"]["delta"] == pytest.approx(0.2)
    assert by_name["stage2 small - baseline full", "accuracy"]["delta"] == 0
    assert all(row["p_holm"] >= row["p"] for row in found["differences"])
    assert found["ratios"] == {
        "visual_tokens": 10,
        "seconds_per_question": 8,
        "noise_drop": pytest.approx(4),
    }
    single = comparisons({key: rows for key, rows in all_rows.items() if key[3] == 0})
    assert (
        single["differences"][1]["mcnemar_p"] == 0.5
    )  # two questions, both for Stage I: 2 * 1 / 2^2


def test_what_was_not_evaluated_is_not_compared():
    rows = {("stage1", "small", "own", 0): fake_rows([1, 0])}
    found = comparisons(rows)
    assert found["differences"] == []
    assert set(found["ratios"].values()) == {None}


def test_histogram_counts_budgets_smallest_first():
    assert budget_histogram([64, 16, None, 16]) == {"16": 2, "64": 1, "none": 1}
