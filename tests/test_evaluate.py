import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Reply
from lfpc.errors import RunError, SampleError
from lfpc.evaluation.opened import OpenEvaluation
from lfpc.evaluation.probes import PROBES, accuracy_drop, derangement
from lfpc.evaluation.results import (
    Condition,
    all_results,
    comparisons,
    condition_results,
    lost,
    ratios,
)
from lfpc.evaluation.run import evaluate
from lfpc.evaluation.terminal import probe_lines
from lfpc.images import CropRules, open_picture
from lfpc.metrics.summary import Timing
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.records import EpisodeRecord, read_records
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


def records_of(
    tmp_path, samples, policy, probe="own", *, name="run", batch=64, label="", **options
):
    look = PROBES[probe](samples, RULES, 0)
    run = run_folder(tmp_path, name)
    settings = {"protocol": PROTOCOL, "budget": 16, "look": look, **options}
    asked = OpenEvaluation(samples=samples, run=run, **settings)
    return evaluate([asked], policy, batch=batch, progress=bool(label), label=label)[0]


def test_records_hold_the_episode_and_its_facts(tmp_path, samples):
    def reward(episode):
        return episode_reward(episode, RewardConfig())

    records = records_of(tmp_path, samples, ScriptedPolicy(look_then_say), batch=4, reward=reward)
    assert [record.sample for record in records] == samples
    first = records[0]
    assert first.correct
    assert first.reward.total == 1.5
    # 112 x 112 at 16 tokens is shown as it is; 28 of 112 pixels are a quarter, and its crop has the
    # processor's minimum of 4 tokens
    assert (first.first_view, first.visual_tokens, first.crop_area) == ((112, 112), 20, 1 / 16)
    assert first.iou == pytest.approx(1 / 4)
    assert first.seconds > 0
    assert list(read_records(run_folder(tmp_path), samples).values()) == records


def test_a_sample_without_the_callers_budget_is_shown_at_its_own(tmp_path, samples):

    small = [dataclasses.replace(samples[0], budget=4)]
    assert records_of(tmp_path, small, ScriptedPolicy(say_at_once), budget=None)[0].first_view == (
        56,
        56,
    )


def test_a_resumed_evaluation_asks_only_what_is_missing(tmp_path, samples):
    records_of(tmp_path, samples[:6], ScriptedPolicy(say_at_once))
    policy = Counting(say_at_once)
    records = records_of(tmp_path, samples, policy)
    assert policy.asked == 4
    assert all(record.correct for record in records)
    assert len((tmp_path / "run" / "episodes.jsonl").read_text().splitlines()) == 10


def test_a_broken_picture_loses_one_question_and_is_tried_again(tmp_path, samples):
    whole = samples[3].image.read_bytes()
    samples[3].image.write_bytes(whole[:40])
    records = records_of(tmp_path, samples, ScriptedPolicy(say_at_once))
    assert [record.sample.id for record in records if record.failed] == ["s3"]
    assert str(samples[3].image) in records[3].error
    assert not records[3].correct
    samples[3].image.write_bytes(whole)
    policy = Counting(say_at_once)
    records = records_of(tmp_path, samples, policy)
    assert policy.asked == 1
    assert records[3].correct


def test_a_question_that_breaks_the_policy_does_not_take_its_batch_with_it(
    tmp_path, samples, caplog
):
    policy = Counting(
        say_at_once,
        fails=lambda context: colour(context.first_view) == "red" and context.question == "Which?",
    )

    samples[2] = dataclasses.replace(samples[2], question="Which?")
    records = records_of(tmp_path, samples, policy)
    assert [record.error for record in records if record.failed] == ["RuntimeError: out of memory"]
    assert sum(record.correct for record in records) == 9
    assert "one by one" in caplog.text


def test_a_policy_that_always_fails_ends_the_run_with_its_reason(tmp_path, samples):
    policy = Counting(say_at_once, fails=lambda context: True)
    with pytest.raises(RunError, match="out of memory"):
        records_of(tmp_path, samples, policy, max_failures=3)
    assert len(run_folder(tmp_path).episodes()) == 10


def test_progress_elsewhere_than_on_a_terminal_is_a_line(tmp_path, samples, capsys):
    records_of(tmp_path, samples, ScriptedPolicy(say_at_once), label="baseline small")
    assert "baseline small: 10 of 10 questions" in capsys.readouterr().err


def test_every_probe_shows_what_it_is_named_for(samples):
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


def test_noise_costs_only_the_policy_that_uses_its_crops(tmp_path, samples):
    looking = ScriptedPolicy(look_then_say)
    blind = ScriptedPolicy(say_at_once)
    own = records_of(tmp_path, samples, looking, name="a")
    noise = records_of(tmp_path, samples, looking, "noise", name="b")
    none = records_of(tmp_path, samples, looking, "none", name="c")
    assert accuracy_drop(own, noise).delta == accuracy_drop(own, none).delta == 1
    blind_own = records_of(tmp_path, samples, blind, name="d")
    blind_noise = records_of(tmp_path, samples, blind, "noise", name="e")
    found = condition_results({"own": blind_own, "noise": blind_noise, "repeat": own})
    assert lost(found, "noise")["delta"] == 0
    assert found["probes"]["noise"]["tool"] is None
    assert lost(found, "repeat")["delta"] == 0


def test_the_terminal_counts_replies_cut_at_the_token_limit_and_names_the_option(tmp_path, samples):
    whole = records_of(tmp_path, samples, ScriptedPolicy(say_at_once))
    cut = [dataclasses.replace(record, truncated=1) for record in whole]
    condition = condition_results({"own": cut, "noise": whole})
    notes = [line for line in probe_lines(condition) if "`max_new_tokens`" in line]
    assert [note.split(" questions")[0] for note in notes] == [f"own: {len(cut)}"]
    assert not any("max_new" in line for line in probe_lines(condition_results({"own": whole})))


def made_up(right, **facts):
    known = {
        "tool": True,
        "iou": 0.5,
        "crop_area": 0.2,
        "visual_tokens": 20,
        "seconds": 0.5,
        "method": "text",
        **facts,
    }
    return [
        EpisodeRecord(
            sample=Sample(
                id=f"q{i}",
                image=Path(f"q{i}.png"),
                question="?",
                answer="red",
                boxes=((WHOLE,),),
                category="c",
            ),
            correct=bool(value),
            **known,
        )
        for i, value in enumerate(right)
    ]


@pytest.fixture
def study():
    records = {}
    full = {"visual_tokens": 200, "seconds": 2.0}
    precise = {"iou": 0.7, "crop_area": 0.1}
    for seed in (0, 1):
        for arm, budget, probe, right, facts in (
            ("baseline", "small", "own", [1, 1, 0, 0, 0, 0, 1, 0], {}),
            ("baseline", "small", "noise", [1, 1, 0, 0, 0, 0, 0, 0], {}),
            ("baseline-matched", "full", "own", [1, 1, 1, 1, 1, 0, 1, 0], full),
            ("stage1", "small", "own", [1, 1, 1, 1, 0, 0, 1, 0], {}),
            ("stage1", "small", "noise", [1, 0, 0, 0, 0, 0, 0, 0], {}),
            ("stage1", "small", "repeat", [1, 1, 1, 1, 0, 0, 1, 0], {}),
            ("stage1-continued", "small", "own", [1, 1, 1, 1, 0, 0, 1, 0], {}),
            ("stage2", "small", "own", [1, 1, 1, 1, 1, 0, 1, 0], precise),
        ):
            records[Condition(arm, budget, probe, seed)] = made_up(right, **facts)
    return records


def first_seed(study):
    return {condition: some for condition, some in study.items() if condition.seed == 0}


def test_results_have_the_promised_shape(study):
    alone = Timing(concurrency=1, questions=5, median=0.25, p95=0.3, per_second=4.0)
    results = all_results(study, timings={("stage2", "small"): [alone]})
    assert (results["questions"], results["seeds"]) == (8, [0, 1])
    stage1 = results["conditions"]["stage1"]["small"]
    assert stage1["summary"]["accuracy"] == 5 / 8
    noise = lost(stage1, "noise")
    assert noise["delta"] == 4 / 8
    assert 0 < noise["low"] < 0.5 < noise["high"] < 1
    assert lost(stage1, "repeat")["delta"] == 0
    assert (stage1["summary"]["seconds"], stage1["seconds_alone"]) == (0.5, None)
    assert stage1["accuracy_by_seed"] == {"0": 5 / 8, "1": 5 / 8}
    stage2 = results["conditions"]["stage2"]["small"]
    assert stage2["seconds_alone"] == 0.25
    assert lost(stage2, "noise") == {}
    promised = {"accuracy", "accuracy_ci", "iou", "crop_area", "visual_tokens", "tool_rate"}
    assert promised <= set(results["conditions"]["baseline-matched"]["full"]["summary"])


def test_a_second_seed_does_not_narrow_an_interval_over_questions(study):
    one = all_results(first_seed(study))["conditions"]["stage1"]["small"]
    two = all_results(study)["conditions"]["stage1"]["small"]
    for end in ("low", "high"):
        assert lost(two, "noise")[end] == pytest.approx(lost(one, "noise")[end])
    widths = [
        found["summary"]["accuracy_ci"][1] - found["summary"]["accuracy_ci"][0]
        for found in (one, two)
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.06)


def test_planned_comparisons_are_paired_and_adjusted(study):
    by_name = {(row["name"], row["metric"]): row for row in comparisons(study)}
    drop = by_name["stage1 small - baseline small", "noise_drop"]
    assert drop["delta"] == pytest.approx(4 / 8 - 1 / 8)
    assert (drop["n"], drop["clusters"]) == (16, 8)
    assert by_name["stage2 small - stage1-continued small", "iou"]["delta"] == pytest.approx(0.2)
    assert by_name["stage2 small - baseline-matched full", "accuracy"]["delta"] == 0
    assert all(row["p_holm"] >= row["p"] for row in by_name.values())
    # two questions, both for Stage I: 2 * 1 / 2^2
    assert comparisons(first_seed(study))[1]["mcnemar_p"] == 0.5


def by_turns(*each):
    """A timing of questions that took these seconds and CPU seconds."""
    return Timing(
        concurrency=1, questions=len(each), median=1, p95=1, per_second=1, cpu=1, each=each
    )


def seconds_ratio(study, ours, theirs):
    timings = {("stage2", "small"): [ours], ("baseline-matched", "full"): [theirs]}
    return ratios(all_results(study, timings=timings)["conditions"])["seconds_alone"]


def test_ratios_are_of_what_each_question_costs(study):
    ours, theirs = by_turns(*[(0.25, 0.5)] * 5), by_turns(*[(2.0, 3.0)] * 5)
    assert seconds_ratio(study, ours, theirs) == pytest.approx(8)
    assert ratios(all_results(study)["conditions"])["visual_tokens"] == 10


def test_a_busy_machine_makes_no_claim_about_seconds(study):
    quick = by_turns(*[(0.2, 0.2)] * 6)
    slow = by_turns(*[(0.4, 0.4)] * 6)
    blurred = by_turns((0.1, 0.4), (0.9, 0.4), (0.15, 0.4), (0.8, 0.4), (0.1, 0.4), (0.3, 0.4))
    same_work = by_turns(*[(0.4, 0.2)] * 6)
    assert seconds_ratio(study, quick, slow) == pytest.approx(2)
    assert seconds_ratio(study, slow, quick) == pytest.approx(0.5)
    assert seconds_ratio(study, quick, blurred) is None, "seconds scatter about those of the other"
    assert seconds_ratio(study, quick, same_work) is None, "as much CPU time, so others were busy"
    assert seconds_ratio(study, quick, quick) is None
    old = Timing(concurrency=1, questions=5, median=9, p95=9, per_second=1)
    assert seconds_ratio(study, quick, old) is None, "not measured by turns"


def test_what_was_not_evaluated_is_not_compared():
    records = {Condition("stage1", "small", "own", 0): made_up([1, 0])}
    assert comparisons(records) == []
    assert set(ratios(all_results(records)["conditions"]).values()) == {None}
