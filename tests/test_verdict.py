"""Made-up answers and the sentence that sums them up."""

import dataclasses
from pathlib import Path

import pytest
from reports import made_up_evidence

from lfpc.evaluation import results
from lfpc.evaluation.compare import compare_runs
from lfpc.evaluation.result import EvaluationResult
from lfpc.evaluation.results import condition_results
from lfpc.evaluation.terminal import (
    closing_lines,
    compare_lines,
    figure_lines,
    gain_lines,
    probe_lines,
)
from lfpc.evaluation.verdict import (
    crop_verdict,
    gain_verdict,
    named_verdicts,
    tool_verdict,
    verdict_lines,
)
from lfpc.metrics.summary import flat_figures
from lfpc.records import EpisodeRecord, failed_record
from lfpc.report import write_report
from lfpc.samples import Sample


def answers(right, *, tool=True, options=(), **facts):
    """A record per verdict, each about a picture of its own."""
    return [
        EpisodeRecord(
            sample=Sample(
                id=f"q{i}",
                image=Path(f"q{i}.png"),
                question="?",
                answer="A" if options else "red",
                options=options,
            ),
            correct=float(verdict),
            method="text",
            tool=tool,
            **facts,
        )
        for i, verdict in enumerate(right)
    ]


def verdict(own, noise, **facts):
    return crop_verdict(condition_results({"own": answers(own, **facts), "noise": answers(noise)}))


def test_a_model_that_loses_under_noise_uses_its_crops():
    said = verdict([1] * 80 + [0] * 20, [1] * 22 + [0] * 78)
    assert said.startswith("Uses its crops: noise costs 58.0 points [")
    assert said.endswith("] of 100 questions.")


def test_a_model_that_loses_nothing_shows_no_sign_and_what_would_have_been_seen():
    flips = [1, 0, 1, 0, 1]
    own = [*flips, *[1] * 400, *[0] * 95]
    noise = [*[1 - one for one in flips], *[1] * 400, *[0] * 95]
    said = verdict(own, noise)
    assert said.startswith("No sign that it uses its crops: noise costs 0.2 points [-0.6, 1.2] of ")
    assert "500 questions; a drop of 1.6 points would have been seen (80 % power)." in said


def test_a_small_loss_is_a_loss_and_small():
    said = verdict([1] * 900 + [0] * 100, [1] * 880 + [0] * 120)
    assert said.startswith("Hardly uses its crops: noise costs 2.0 points [1.2, 2.9] of 1000 ")


def test_few_questions_say_nothing_whatever_their_answers():
    assert verdict([1] * 40, [1] * 30 + [0] * 10).startswith("Uses its crops")
    for own, noise in (([1, 1, 1], [0, 0, 0]), ([1, 0] * 15, [1, 0] * 15), ([1], [0])):
        assert verdict(own, noise).startswith("Too few questions to say: ")
    assert "a drop below 24.2 points may go unseen" in verdict([1, 0] * 15, [1, 0] * 15)


def test_noise_that_helps_is_said_to_help():
    said = verdict([0] * 30 + [1] * 70, [1] * 90 + [0] * 10)
    assert said.startswith("Better without its crops: noise gains 20.0 points [")


def test_a_model_without_crops_and_an_evaluation_without_answers_get_no_judgement():
    right = [1] * 100
    assert verdict(right, right, tool=False) == (
        "Never crops: none of 100 questions led to a crop."
    )
    other = answers(right, tool=False, malformed=("no_action", "no_action"))
    assert crop_verdict(condition_results({"own": other, "noise": other})) == (
        "Never crops: none of 100 questions led to a crop, malformed replies: no_action 200."
    )
    failed = [failed_record(one.sample, RuntimeError("no server")) for one in answers(right)]
    found = crop_verdict(condition_results({"own": failed, "noise": failed}))
    assert found == "No verdict: 100 of 100 questions have no answer (own)."
    half = condition_results({"own": answers(right), "noise": [*failed[:6], *answers(right)[6:]]})
    assert crop_verdict(half) == "No verdict: 6 of 100 questions have no answer (noise)."


def test_a_seldom_tool_is_named():
    seldom = [dataclasses.replace(one, tool=i < 50) for i, one in enumerate(answers([1] * 500))]
    said = crop_verdict(condition_results({"own": seldom, "noise": answers([1] * 500)}))
    assert "of 500 questions, 10 % of them with a crop; a drop of" in said


def test_another_probe_stands_in_for_noise_and_a_missing_picture_does_not():
    own, blind = answers([1] * 50), answers([0] * 50)
    assert crop_verdict(condition_results({"own": own, "none": blind})) is None
    for mark in ("", " (replay)"):
        said = crop_verdict(condition_results({"own": own, f"other{mark}": blind}))
        assert said.startswith(f"Uses its crops: another picture{mark} costs 100.0 points [")


def test_verdicts_on_several_budgets_have_their_names():
    own, blind = answers([1] * 50), answers([0] * 50)
    uses, unsure = (condition_results({"own": own, "noise": shown}) for shown in (blind, own))
    said = named_verdicts({"vstar/256": uses, "vstar/1024": unsure})
    assert [line.split(": ")[:2] for line in said] == [
        ["vstar/256", "Uses its crops"],
        ["vstar/1024", "Too few questions to say"],
    ]
    assert named_verdicts({".": uses}) == verdict_lines(uses)


def test_several_training_seeds_count_as_runs_and_not_as_questions():
    """Two runs lose and one gains: questions alone would show a loss, runs do not."""
    own = [
        dataclasses.replace(one, seed=s) for s in range(3) for one in answers([1] * 50 + [0] * 50)
    ]
    lost = ([0] * 50 + [0] * 50, [1] * 30 + [0] * 70, [1] * 90 + [0] * 10)
    noise = [dataclasses.replace(one, seed=s) for s in range(3) for one in answers(lost[s])]
    condition = condition_results({"own": own, "noise": noise})
    row = condition["probes"]["noise"]["all"]
    assert row["low"] < 0 < row["high"]
    assert row["p"] > 0.05
    assert not crop_verdict(condition).startswith("Uses its crops")
    assert crop_verdict(condition).endswith(
        "300 pairs of question and seed about 100 pictures under 3 training seeds."
    )
    agree = [dataclasses.replace(one, seed=s) for s in range(3) for one in answers([0] * 100)]
    known = crop_verdict(condition_results({"own": own, "noise": agree}))
    assert known.startswith("Uses its crops: noise costs 50.0 points [")
    assert known.endswith("] of 300 pairs of question and seed.")
    assert results.lost(condition, "noise") == row, "as in tables and figures"
    alone = condition_results({"own": own, "no-tool": noise})
    assert not tool_verdict(alone).startswith("The tool is worth")


def test_the_tool_is_worth_what_answers_lose_without_it():
    own = answers([1] * 80 + [0] * 20)
    condition = condition_results({"own": own, "no-tool": answers([1] * 40 + [0] * 60)})
    assert tool_verdict(condition).startswith("The tool is worth 40.0 points [")
    same = condition_results({"own": own, "no-tool": own})
    assert tool_verdict(same).startswith("Too few questions to say what the tool is worth: 0.0 po")
    many = answers([1] * 800 + [0] * 200)
    none = tool_verdict(condition_results({"own": many, "no-tool": many}))
    assert none.startswith("No sign that the tool is worth anything: 0.0 points [-")
    assert none.endswith("]; 0.8 points would have been seen (80 % power).")
    worse = condition_results({"own": answers([0] * 40 + [1] * 40), "no-tool": answers([1] * 80)})
    assert tool_verdict(worse).startswith("The tool costs accuracy: -50.0 points [")
    assert verdict_lines(condition) == [tool_verdict(condition)]


def test_the_text_of_a_result_ends_with_the_verdict():
    own = answers([1] * 100)
    condition = condition_results({"own": own, "noise": answers([0] * 100)})
    result = EvaluationResult(path=Path("run"), root=Path("run"), condition=condition)
    assert str(result).splitlines()[-1] == crop_verdict(condition)


def row_of_gain(delta, low, high, p, smallest=0.1):
    numbers = {"delta": delta, "low": low, "high": high, "p": p, "smallest": smallest}
    shares = {"helped": 0.6, "nothing": 0.3, "hurt": 0.1, "power": "power"}
    return {**numbers, **shares, "n": 160, "clusters": 160}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((0.46, 0.36, 0.56, 0.0001), "Its crops make the right answer more likely: 0.46 nats [0.3"),
        ((-0.2, -0.3, -0.1, 0.01), "Its crops make the right answer less likely: -0.20 nats [-0.3"),
        ((0.0, -0.1, 0.1, 0.9), "No sign that its crops change the right answer's probability: 0."),
        (
            (0.87, 0.02, 1.73, 0.06, 1.3),
            "Too few questions to say: 0.87 nats [0.02, 1.73] over noise, 160 questions; a gain "
            "below 1.30 nats may go unseen.",
        ),
        ((0.5, None, None, 1.0), "Too few questions to say: 160 questions about 160 pictures."),
    ],
)
def test_a_gain_in_nats_has_its_sentence(row, said):
    results = {"n": 160, "logprob": -1.0, "ece": None, "entropy": None}
    results["looks"] = {"truth": row_of_gain(1, 0.5, 1.5, 0), "noise": row_of_gain(*row)}
    assert gain_verdict(results).startswith(said)
    assert gain_lines(results)[-1] == gain_verdict(results)
    assert gain_verdict({"looks": {}}) is None


def test_chance_stands_beside_the_accuracy_where_options_are_known():
    own = condition_results({"own": answers([1, 0] * 8, options=("x", "y", "z", "w"))})
    assert "chance level (guessing among the options): 25.0" in probe_lines(own)
    (line,) = figure_lines({"vstar": flat_figures(own["summary"])}, {})
    assert "of 16 records, chance 0.250;" in line
    free = condition_results({"own": answers([1, 0] * 8)})
    assert not any("chance" in line for line in probe_lines(free))


def test_several_tasks_and_budgets_end_with_one_table():
    right, wrong = answers([1, 1, 1, 0] * 4, options=("x", "y")), answers([0] * 16)
    found = {
        "vstar/1024": condition_results({"own": right, "noise": wrong}),
        "256": condition_results({"own": answers([1, 0] * 8, tool=False)}),
    }
    head, first, second, note = closing_lines(found)
    assert head.split()[-4:] == ["tool", "lost", "under", "noise"]
    task, budget, n, chance, *rest = first.split()
    assert (task, budget, n, chance, rest[0]) == ("vstar", "1024", "16", "50.0", "75.0")
    assert rest[3:5] == ["100.0", "+75.0"]
    assert second.split()[:5] == ["samples", "256", "16", "-", "50.0"]
    assert second.split()[-2:] == ["0.0", "-"]
    assert len({len(line) for line in (head, first)}) == 1
    assert "95 %" in note


def test_seconds_that_a_batch_shares_have_no_interval():
    fast, slow = answers([1] * 8, seconds=0.1), answers([1] * 8, seconds=0.2)
    (line,) = (
        one
        for one in compare_lines(compare_runs({"own": fast}, {"own": slow}), ("a", "b"))
        if one.startswith("seconds")
    )
    assert line.split() == ["seconds", "as", "played", "0.1", "0.2", "-0.1", "8", "8"]
    apart = [dataclasses.replace(one, concurrency=4, seconds=0.1 * i) for i, one in enumerate(fast)]
    found = compare_runs({"own": apart}, {"own": apart[::-1]})
    (row,) = (one for one in found["fields"] if one["metric"] == "seconds")
    assert row["low"] is not None


def test_no_discordant_pair_in_eight_is_no_certainty():
    found = compare_runs({"own": answers([1, 0] * 4)}, {"own": answers([1, 0] * 4)})
    assert "+0.0 [-20.1, +20.1]" in compare_lines(found, ("a", "b"))[3]


def test_a_folder_with_the_name_of_a_preset_is_not_described_as_one(tmp_path):
    records = {("deepeyes", "1024", "own", 0): answers([1] * 4)}
    page = write_report(tmp_path, made_up_evidence(records), title="T", shown=0).read_text()
    assert '<section id="arms">' not in page


def test_the_page_opens_with_the_verdicts_and_its_accuracy_names_chance(tmp_path):
    options = ("x", "y", "z", "w")
    records = {
        ("mine", "1024", "own", 0): answers([1] * 100, options=options),
        ("mine", "1024", "noise", 0): answers([0] * 100, options=options),
    }
    page = write_report(tmp_path, made_up_evidence(records), title="T", shown=0).read_text()
    said = '<p id="verdict">Uses its crops: noise costs 100.0 points ['
    assert page.index(said) < page.index("<table>")
    assert "<td>25.0 %</td>" in page
