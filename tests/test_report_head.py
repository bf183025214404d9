"""What a report opens with: verdict, figures with references, facts, progress, and its tables."""

import pytest
from reports import CONFIG, made_up_evidence, made_up_record

from lfpc.evaluation.results import Condition
from lfpc.records import failed_record
from lfpc.report import write_report
from lfpc.report.browser import episode_sets
from lfpc.report.cells import lost_kind
from lfpc.report.evidence import TRAINING, Origin
from lfpc.report.head import example_of, facts_of, head_of, headline, progress_of, resolution_note
from lfpc.report.names import namer
from lfpc.report.pictures import PictureFiles
from lfpc.report.tables import gain_table, results_table
from lfpc.samples import Sample

TASKS = ("vstar/1024", "vstar/16384", "hrbench-4k/1024")


def records(right, count=60, **more):
    return [
        made_up_record(f"q{n}", n < right, tool=True, visual_tokens=30, global_tokens=20, **more)
        for n in range(count)
    ]


def test_a_run_without_probes_says_what_to_do(tmp_path):
    head = head_of(made_up_evidence({("a", "25", "own", 0): records(5)}).results)
    assert head is not None
    assert head.verdict.startswith("Not probed")
    assert "lfpc probe RUN" in head.verdict


def test_a_run_whose_questions_all_failed_says_so_above_everything(tmp_path):
    sample = Sample(id="q", image=tmp_path / "q.png", question="?", answer="a")
    failed = [failed_record(sample, "no such server")]
    found = made_up_evidence({("a", "25", probe, 0): failed for probe in ("own", "noise")})
    text = write_report(tmp_path / "out", found, title="A run").read_text()
    place = text.index("1 of 1 questions failed and count as wrong, the first with: no such server")
    assert text.index("Incomplete results") < place < text.index("<h1>")
    assert "No verdict: 1 of 1 questions have no answer (own)." in text
    assert "0.0 % (0 of 1)" in text.replace(" [0.0, 79.3]", "")


def test_replies_that_the_token_limit_ended_are_a_warning_with_the_option_to_raise(tmp_path):
    found = made_up_evidence({("a", "25", "own", 0): records(3, 3, truncated=1)})
    text = write_report(tmp_path / "out", found, title="A run").read_text()
    assert '<p class="fault">25 tokens, own: 3 questions have a reply that the token limit' in text
    assert "raise --max-new-tokens" in text
    assert "Incomplete results" not in text


def test_each_figure_of_the_head_has_its_reference():
    found = made_up_evidence(
        {
            ("a", "25", "own", 0): records(50, options=("x", "y"), answer="x"),
            ("a", "25", "noise", 0): records(10, options=("x", "y"), answer="x"),
            ("a", "256", "own", 0): records(40, options=("x", "y"), answer="x"),
        }
    ).results
    head = head_of(found)
    assert head is not None
    assert (headline(found), head.name) == (("a", "25"), "25 tokens")
    accuracy, noise, tokens = head.tiles
    assert (accuracy.value, accuracy.reference) == (
        "83.3 %",
        "chance 50.0 %; 256 tokens: 66.7 %",
    )
    assert (noise.value, noise.reference) == ("66.7 points", "")
    assert (tokens.value, tokens.reference) == ("30", "20 in the first view; 256 tokens: 30")


@pytest.mark.parametrize(("right", "said", "changed"), [(10, "blue", True), (50, "red", False)])
def test_the_example_shows_what_the_verdict_says(tmp_path, right, said, changed):
    answers = {"own": records(50, said="red"), "noise": records(right, said=said)}
    found = made_up_evidence({("a", "25", probe, 0): some for probe, some in answers.items()})
    picked = {f"q{n}" for n in range(20, 60)}
    shown = example_of(
        found, found.results, episode_sets(found), picked, PictureFiles(tmp_path / "pictures")
    )
    assert shown is not None
    assert shown.changed == changed
    assert shown.card["id"] in {f"q{n}" for n in range(20, 50)}, "right with its own crop"
    assert shown.href.endswith(f"at={shown.card['id']}")


def test_an_incomplete_condition_is_no_reference():
    failed = [failed_record(record.sample, "gone") for record in records(5, 5)]
    found = made_up_evidence({("a", "25", "own", 0): records(5), ("a", "256", "own", 0): failed})
    head = head_of(found.results)
    assert head is not None
    assert [tile.reference for tile in head.tiles] == ["", "20 in the first view"]


def test_a_study_opens_with_stage_2_at_the_small_budget_beside_the_baseline_at_the_full():
    matched = "baseline-matched"
    cells = [(matched, "small"), (matched, "full"), ("stage2", "small")]
    found = made_up_evidence({(*cell, "own", 0): records(30) for cell in cells}).results
    head = head_of(found)
    assert head is not None
    assert head.name == "stage2, small"
    assert head.tiles[0].reference == "baseline-matched, full: 50.0 %"


def test_a_study_of_numbered_budgets_opens_with_stage_2_too():
    arms = ("base", "baseline-matched", "stage2")
    cells = [(arm, budget) for arm in arms for budget in ("25", "256")]
    found = made_up_evidence(
        {(*cell, probe, 0): records(30) for cell in cells for probe in ("own", "noise")}
    ).results
    head = head_of(found)
    assert head is not None
    assert head.name == "stage2, 25 tokens"
    assert head.tiles[0].reference == "baseline-matched, 256 tokens: 50.0 %"
    del found["conditions"]["baseline-matched"]  # a folder of this name by chance
    assert headline(found) == ("base", "25")


def test_conditions_have_names_that_a_reader_knows():
    assert [namer([("run", task) for task in TASKS])("run", task) for task in TASKS] == [
        "vstar, 1024 tokens",
        "vstar, 16384 tokens",
        "hrbench-4k, 1024 tokens",
    ]
    assert namer([("run", "chosen")])("run", "chosen") == "chosen budgets"
    assert namer([("stage1", "small")])("stage1", "small") == "stage1, small"
    assert namer([("a", "25"), ("b", "25")])("b", "25") == "b, 25 tokens"


def test_results_are_a_row_for_each_task_and_budget_with_the_best_of_each_task_marked():
    given = dict(zip(TASKS, (30, 40, 50), strict=True))
    found = made_up_evidence({("run", task, "own", 0): records(n) for task, n in given.items()})
    table = results_table(found.results, namer(("run", task) for task in TASKS))
    assert [row[0].text for row in table.rows] == [
        "vstar, 1024 tokens",
        "vstar, 16384 tokens",
        "hrbench-4k, 1024 tokens",
    ]
    assert [row[3].best for row in table.rows] == [False, True, False]
    assert [row[1].text for row in table.rows] == ["60"] * 3


def test_the_gain_of_a_crop_is_a_table():
    row = {"delta": 0.514, "low": 0.31, "high": 0.72, "p": 0.0001, "p_holm": 0.02, "n": 40}
    shares = {"helped": 0.675, "nothing": 0.25, "hurt": 0.075}
    results = {"conditions": {"a": {"25": {"gain": {"looks": {"noise": row | shares}}}}}}
    (cells,) = gain_table(results, namer([("a", "25")])).rows
    assert [cell.text for cell in cells] == [
        "25 tokens: noise",
        "+0.51 [0.31, 0.72]",
        "< 0.001",
        "0.020",
        "67.5 %",
        "25.0 %",
        "7.5 %",
        "40",
    ]
    assert "sort=gain" in cells[1].href


def test_an_evaluation_names_model_data_protocol_and_date_and_no_training_seed():
    config = CONFIG | {"model": "/a/long/path/of/checkpoint"}
    key = ("run", "25", "own", 0)
    found = made_up_evidence(
        {key: records(3, 3)}, origins={Condition(*key): Origin(config, {}, "2026-11-26")}
    )
    configs = {"25/own": {"data": {"source": "/data/of/questions"}}}
    facts = dict(facts_of(found, {**found.results, "configs": configs}))
    assert facts == {
        "Model": "of/checkpoint",
        "Data": "of/questions",
        "Questions": "3",
        "Protocol": "qwen2_5_vl",
        "Date": "2026-11-26",
    }


@pytest.mark.parametrize(("name", "shown"), [("small", "small 25"), ("25", "25")])
def test_a_study_names_its_budgets(name, shown):
    key = ("stage1", name, "own", 0)
    config = CONFIG | {"arm": "stage1", "budget": 25}
    found = made_up_evidence({key: records(3, 3)}, origins={Condition(*key): Origin(config, {})})
    assert dict(facts_of(found, found.results))["Budgets"] == f"{shown} visual tokens"


def training(arm, steps, **config):
    return Condition(arm, TRAINING, "own", 0), Origin(CONFIG | {"steps": steps, **config}, {})


def test_a_run_that_goes_on_tells_its_step_and_the_time_left():
    rows = [{"step": n, "seconds": 30.0} for n in range(1, 21)]
    found = made_up_evidence(
        {}, curves={"a": rows, "b": rows}, origins=dict([training("a", 80), training("b", 20)])
    )
    assert progress_of(found) == ["a: step 20 of 80, about 30 min left"]


def test_curves_of_other_first_views_are_noted():
    arms = {"baseline": "original", "stage1": "selected", "stage2": "selected"}
    origins = dict(training(arm, 1, first_view=view) for arm, view in arms.items())
    found = made_up_evidence({}, curves=dict.fromkeys(arms, ()), origins=origins)
    assert resolution_note(found).endswith(
        "baseline: the original's resolution; stage1, stage2: each sample's selected budget."
    )
    alike = dict(list(origins.items())[1:])
    assert (
        resolution_note(made_up_evidence({}, curves=dict.fromkeys(arms, ()), origins=alike)) == ""
    )


@pytest.mark.parametrize(
    ("probe", "kind"), [("noise", "lost-noise"), ("truth-wide", "gained-truth-wide")]
)
def test_a_truth_box_can_only_help(probe, kind):
    assert lost_kind(probe) == kind
