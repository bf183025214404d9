"""Probes and comparisons of recorded runs, end to end with policies that are a few lines long."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reports import crop_turn, made_up_record

from lfpc import cli
from lfpc.boxes import Box
from lfpc.dialogue import Answer, Malformed, Reason, Reply
from lfpc.errors import ConfigError, RunError, SampleError
from lfpc.evaluation import probe as probe_run
from lfpc.evaluation.compare import compare_folders, compare_runs
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.places import find_places, own_evaluation, place_at, place_records
from lfpc.evaluation.probes import average_draws
from lfpc.evaluation.replay import needs_no_replay, prefix
from lfpc.evaluation.run import evaluate_probe
from lfpc.evaluation.stored import update_results
from lfpc.images import CropRules, open_picture
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.records import EpisodeRecord, TurnRecord
from lfpc.samples import Sample
from lfpc.storage.runs import read_run

RED = (255, 0, 0)
BLUE = (0, 0, 255)
CALL = (
    'I look. <tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, '
    "28]}}</tool_call>"
)
CONFIG = EvaluationConfig(
    model="model", budget=16, probe="own", crop=CropRules(min_tokens=1, max_tokens=16)
)


@pytest.fixture
def samples(tmp_path):
    """Twelve pictures of one colour each: even ones red, odd ones blue."""
    open_picture.cache_clear()
    found = []
    for i in range(12):
        path = tmp_path / "pictures" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (112, 112), BLUE if i % 2 else RED).save(path)
        answer = "blue" if i % 2 else "red"
        found.append(
            Sample(
                id=f"s{i}",
                image=path,
                question=f"Colour {i}?",
                answer=answer,
                boxes=((Box(0, 0, 0.5, 0.5),),),
            )
        )
    return found


def colour(view):
    r, _, b = np.asarray(view.image).reshape(-1, 3).mean(0)
    return "red" if r > 200 and b < 50 else "blue" if b > 200 and r < 50 else "unclear"


def looks(context):
    """Crops once, then says what the crop shows; about pictures 0 and 1 it answers at once."""
    if not context.turns:
        return (
            f"<answer>{colour(context.first_view)}</answer>"
            if context.question in ("Colour 0?", "Colour 1?")
            else CALL
        )
    view = context.turns[-1].view
    return f"<answer>{'nothing' if view is None else colour(view)}</answer>"


def knows(context):
    """Crops once, after it has already named the colour that it then answers."""
    said = colour(context.first_view)
    return f"<answer>{said}</answer>" if context.turns else f"It is {said}. {CALL}"


class Recording:
    """Answers by script and remembers the contexts it was asked with."""

    def __init__(self, script):
        self.script = script
        self.contexts = []

    def reply(self, contexts):
        self.contexts += contexts
        return [Reply(self.script(context), (1, 2, 3)) for context in contexts]


def evaluated(samples, script, out: Path, budget: int = 16) -> list[EpisodeRecord]:
    config = dataclasses.replace(CONFIG, budget=budget)
    return evaluate_probe(Recording(script), samples, config, out / "own", progress=False)


def records_at(place: Path, *, replay: bool = False) -> dict[str, list[EpisodeRecord]]:
    return place_records(place_at(place), replay=replay)


@pytest.fixture
def run(tmp_path, samples):
    """A run of the policy that looks, all right."""
    evaluated(samples, looks, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def policy(monkeypatch):
    """The policy that every run's checkpoint turns out to be."""
    made = Recording(looks)
    monkeypatch.setattr(probe_run, "any_policy", lambda config, server: made)
    return made


def drops(run: Path) -> dict[tuple[str, str], float]:
    """The accuracy lost by (probe, questions), as results.json has it."""
    probes = update_results(run)["conditions"][""]["16"]["probes"]
    return {
        (probe, questions): found[questions]["delta"]
        for probe, found in probes.items()
        for questions in ("all", "tool")
    }


def test_a_policy_that_uses_its_crops_loses_what_they_held(run, policy):
    result = probe_run.probe_run(
        run, ["noise", "truth", "other", "mean", "none", "repeat"], progress=False
    )
    lines = str(result).splitlines()
    found = drops(run)
    # ten of twelve questions call the tool; those answered at once lose nothing
    assert found["noise", "all"] == found["none", "all"] == pytest.approx(10 / 12)
    assert found["noise", "tool"] == found["none", "tool"] == 1
    assert found["truth", "all"] == found["repeat", "all"] == found["mean", "all"] == 0
    assert lines[0].split()[:2] == ["probe", "accuracy"]
    assert any(line.startswith("noise ") and "+83.3" in line for line in lines)
    assert any(line.startswith("noise: 12 paired answers about 12 pictures") for line in lines)
    asked = len(policy.contexts)
    assert probe_run.probe_run(
        run, ["noise"], progress=False
    )  # nothing is asked again, earlier probes stay in the results
    assert len(policy.contexts) == asked
    assert drops(run) == found


def test_a_replay_gives_the_recorded_words_again_and_asks_only_for_what_follows(run, policy):
    own = {record.sample.id: record for record in records_at(run)["own"]}
    probe_run.probe_run(run, ["noise", "repeat"], replay=True, progress=False)
    assert (
        len(policy.contexts) == 2 * 10
    )  # one reply a question with a crop, none for the two without
    assert all([turn.reply.text for turn in context.turns] == [CALL] for context in policy.contexts)
    assert {colour(context.turns[0].view) for context in policy.contexts[::2]} == {"unclear"}
    found = drops(run)
    assert found["noise (replay)", "tool"] == 1
    assert found["repeat (replay)", "all"] == 0
    shown = {record.sample.id: record for record in records_at(run, replay=True)["repeat"]}
    assert [shown[name].turns for name in own] == [
        own[name].turns for name in own
    ]  # word for word, token counts as well
    assert (shown["s0"].replayed, shown["s5"].replayed) == (1, 1)
    asked = len(policy.contexts)
    probe_run.probe_run(run, ["noise"], replay=True, progress=False)
    assert len(policy.contexts) == asked


def test_the_prefix_ends_with_the_first_call():
    bad = TurnRecord(text="?", action=Malformed(Reason.NO_ACTION, ""))
    first = crop_turn((0.0, 0.0, 0.5, 0.5))
    second = crop_turn((0.5, 0.5, 1.0, 1.0))
    answer = TurnRecord(text="red", action=Answer("red"))
    assert prefix(made_up_record("a", turns=(bad, first, second, answer))) == (bad, first)
    assert (
        prefix(made_up_record("b", turns=(bad, first))) == ()
    )  # nothing was said after the crop: there is nothing to ask again
    assert needs_no_replay(made_up_record("c", turns=(answer,)))
    assert not needs_no_replay(made_up_record("d", error="broken"))


def test_a_question_that_failed_is_left_out_of_a_replay(tmp_path, samples, policy):
    whole = samples[3].image.read_bytes()
    samples[3].image.write_bytes(b"broken")
    evaluated(samples, looks, tmp_path / "run")
    samples[3].image.write_bytes(whole)
    result = probe_run.probe_run(tmp_path / "run", ["noise"], replay=True, progress=False)
    lines = str(result).splitlines()
    assert len(records_at(tmp_path / "run", replay=True)["noise"]) == 11
    assert lines[1].split()[:5] == ["own", "91.7", "(11", "of", "12)"]
    assert any(
        line.startswith("own: 1 of 12 questions failed and count as wrong, the first with: ")
        for line in lines
    )


def test_records_say_what_was_asked(run, samples):
    own = records_at(run)["own"]
    assert [record.sample for record in own] == samples
    assert {record.budget for record in own} == {16}
    read_run(run / "own").log_episode("x", {"sample": "x"})
    with pytest.raises(RunError, match=r"episodes\.jsonl:13: not a record"):
        probe_run.probe_run(run, ["noise"])


def test_draws_are_averaged_question_by_question(run, policy):
    a, b = ([made_up_record("q", correct, seed=seed)] for seed, correct in enumerate((True, False)))
    assert average_draws([a, b]) == [made_up_record("q", 0.5, seed=0)]
    assert average_draws([a, [dataclasses.replace(b[0], error="cut")]])[0].error == "cut"
    probe_run.probe_run(run, ["noise", "none"], draws=2, progress=False)
    assert {path.name for path in run.iterdir() if path.is_dir()} == {
        "own",
        "noise",
        "noise-1",
        "none",
    }
    first, second = (
        json.loads((run / name / "config.json").read_text())["config"]["seed"]
        for name in ("noise", "noise-1")
    )
    assert (first, second) == (0, 1)


def test_what_was_answered_before_the_crop_is_said(tmp_path, samples, policy):
    policy.script = knows
    evaluated(samples, knows, tmp_path / "run")
    result = probe_run.probe_run(tmp_path / "run", ["noise"], progress=False)
    lines = str(result).splitlines()
    assert (
        "already answered before the first crop: 100% of 12 questions where the text shows it"
        in lines
    )
    assert drops(tmp_path / "run")["noise", "all"] == 0


def test_probes_that_cannot_be_shown_are_refused_before_anything_is_asked(
    tmp_path, run, samples, policy
):
    with pytest.raises(ConfigError, match="unknown probe 'nois'; known are repeat, truth"):
        probe_run.probe_run(run, ["nois"])
    with pytest.raises(ConfigError, match="`draws` must be at least 1"):
        probe_run.probe_run(run, ["noise"], draws=0)
    evaluated(
        [dataclasses.replace(sample, boxes=()) for sample in samples], looks, tmp_path / "boxless"
    )
    with pytest.raises(
        SampleError, match="'truth' needs samples with boxes, and none of these 12 has any"
    ):
        probe_run.probe_run(tmp_path / "boxless", ["noise", "truth"])
    assert policy.contexts == []


def test_the_truth_is_asked_only_where_it_is_known(tmp_path, samples, policy):
    some = [
        dataclasses.replace(sample, boxes=()) if n < 4 else sample
        for n, sample in enumerate(samples)
    ]
    evaluated(some, looks, tmp_path / "run")
    probe_run.probe_run(tmp_path / "run", ["truth"], progress=False)
    assert len(records_at(tmp_path / "run")["truth"]) == 8


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "config.json").write_text(
        '{"kind": "train", "format": 2, "config": {"steps": 3}}'
    )
    (tmp_path / "training" / "episodes.jsonl").write_text("")
    with pytest.raises(
        RunError, match="holds no evaluation with the policy's own crops; make one with: lfpc eval"
    ):
        own_evaluation(tmp_path / "training")
    (tmp_path / "training" / "config.json").write_text("{")
    with pytest.raises(RunError, match="is this a run folder"):
        own_evaluation(tmp_path / "training")


def test_two_runs_are_compared_pair_by_pair(tmp_path, samples, policy):
    def half_blind(context):
        return looks(context) if context.question < "Colour 4" else "<answer>green</answer>"

    evaluated(samples, looks, tmp_path / "a")
    evaluated(samples[:11], half_blind, tmp_path / "b")
    for name, script in (("a", looks), ("b", half_blind)):
        policy.script = script
        probe_run.probe_run(tmp_path / name, ["noise"], progress=False)
    found = compare_runs(records_at(tmp_path / "a"), records_at(tmp_path / "b"))
    accuracy, noise = found["tests"]
    # of the eleven shared questions b answers 0, 1, 10, 2 and 3: six fewer
    assert (accuracy["left"], accuracy["right"], accuracy["delta"]) == pytest.approx(
        (1, 5 / 11, 6 / 11)
    )
    assert accuracy["mcnemar_p"] == pytest.approx(2 / 2**6)  # six verdicts changed, all one way
    assert accuracy["p_holm"] >= accuracy["p"]
    assert noise["metric"] == "lost under noise"
    assert noise["delta"] == pytest.approx(9 / 11 - 3 / 11)
    fields = {row["metric"]: row for row in found["fields"]}
    # both texts have three tokens a reply; b makes one crop call less on each of the six
    assert fields["text_tokens"]["delta"] == pytest.approx(6 * 3 / 11)
    assert fields["calls"]["delta"] == pytest.approx(6 / 11)
    assert "p_holm" not in fields["calls"]
    assert found["unpaired"] == {"A": 1, "B": 0}


def test_a_folder_of_several_runs_is_probed_and_compared_run_by_run(
    tmp_path, samples, policy, capsys
):
    for budget in (256, 1024):
        evaluated(samples, looks, tmp_path / "a" / str(budget), budget)
    evaluated(samples, looks, tmp_path / "b" / "256", 256)
    assert list(find_places(tmp_path / "a")) == ["256", "1024"]
    assert cli.main(["probe", str(tmp_path / "a"), "--probes", "noise"]) == 0
    conditions = json.loads((tmp_path / "a" / "results.json").read_text())["conditions"][""]
    assert [list(conditions[budget]["probes"]) for budget in ("256", "1024")] == [["noise"]] * 2
    assert list(compare_folders(tmp_path / "a", tmp_path / "b")) == ["256"]
    with pytest.raises(RunError, match=r"holds 256, 1024 and .* holds \."):
        compare_folders(tmp_path / "a", tmp_path / "b" / "256")


def test_a_run_does_not_differ_from_itself_and_strangers_are_not_compared(run, tmp_path, samples):
    own = records_at(run)
    found = compare_runs(own, own)
    assert {row["delta"] for row in [*found["tests"], *found["fields"]]} == {0}
    evaluated(
        [dataclasses.replace(sample, id=f"x{sample.id}") for sample in samples],
        looks,
        tmp_path / "strange",
    )
    with pytest.raises(RunError, match="no common question"):
        compare_runs(own, records_at(tmp_path / "strange"))


def test_the_verbs_print_tables_and_say_where_the_figures_are(run, policy, tmp_path, capsys):
    assert cli.main(["probe", str(run), "--probes", "noise,none", "--replay"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(run)
    assert [line.split("  ")[0] for line in lines[1:5]] == [
        "probe",
        "own",
        "noise (replay)",
        "none (replay)",
    ]
    assert lines[-2] == f"results: {run / 'results.json'}"
    assert "noise (replay) costs" in lines[-1]
    out = tmp_path / "figures" / "compare.json"
    assert cli.main(["compare", str(run), str(run), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[:3] == ["accuracy", "100.0", "100.0"]
    assert lines[0] == f"A: {run}"
    assert lines[-1] == f"figures: {out}"
    assert json.loads(out.read_text())["."]["tests"][0]["delta"] == 0
    assert cli.main(["compare", str(run), str(tmp_path / "pictures")]) == 1
    assert "pictures: no evaluation at or below it" in capsys.readouterr().err


def test_the_own_folder_of_a_run_can_be_named_as_well(run, policy):
    assert list(find_places(run / "own")) == ["."]
    assert cli.main(["probe", str(run / "own"), "--probes", "none"]) == 0
    conditions = json.loads((run / "own" / "results.json").read_text())["conditions"][""]
    assert conditions["16"]["probes"]["none"]["all"]["delta"] == pytest.approx(10 / 12)


def test_a_scripted_policy_can_be_evaluated_by_the_same_door(tmp_path, samples):
    records = evaluate_probe(
        ScriptedPolicy(looks), samples, CONFIG, tmp_path / "run", progress=False
    )
    assert all(record.correct for record in records)
    assert records[5].turns[0].action.emitted == (0, 0, 28, 28)
    assert records[5].turns[0].cut == (0, 0, 28, 28)
