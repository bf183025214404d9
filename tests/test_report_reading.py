"""Run folders of every kind, read for a report, and the command that writes one."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from reports import CONFIG, made_up_episode, noise_pictures, write_run

from lfpc import cli
from lfpc.errors import RunError
from lfpc.evaluation.results import Condition
from lfpc.evaluation.timing import write_timings
from lfpc.metrics.summary import Timing
from lfpc.report import write_report
from lfpc.report.reading import budget_histogram, read_runs
from lfpc.report.tables import probe_table
from lfpc.rewards import RewardTerms
from lfpc.samples import Sample, write_samples
from lfpc.storage.runs import Kind


def write_evaluation(folder, records, **config):
    settings = {**CONFIG, "budget": 8, "probe": folder.name, **config}
    write_run(folder, records, Kind.EVALUATION, **settings)


def write_training(folder, pictures, *, kept=2, rewards=(0.5, 0.7), **config):
    """A training run of two steps that kept two episodes, and the samples folder it learnt from."""
    data = folder.parent / "learnt"
    data.mkdir(parents=True, exist_ok=True)
    write_samples(
        [
            Sample(id=str(n), image=path, question="?", answer="a", budget=16 * (n + 1))
            for n, path in enumerate(pictures)
        ],
        data,
    )
    records = [
        made_up_episode(n, pictures[0], correct=True, step=1, reward=RewardTerms(accuracy=1.0))
        for n in range(kept)
    ]
    write_run(folder, records, Kind.TRAIN, **{**CONFIG, "data": str(data), **config})
    (folder / "metrics.jsonl").write_text(
        "".join(
            f'{{"step": {step}, "reward": {reward}}}\n' for step, reward in enumerate(rewards, 1)
        )
    )


@pytest.fixture
def pictures(tmp_path):
    return noise_pictures(tmp_path / "pictures", 2)


@pytest.fixture
def evaluated(tmp_path, pictures):
    """Writes what `lfpc eval` writes, at two budgets, one of them probed; returns the folder."""

    def write(name, right=lambda n: True):
        run = tmp_path / name
        own = [made_up_episode(n, pictures[n % 2], correct=right(n)) for n in range(4)]
        wrong = [replace(record, correct=False) for record in own]
        replayed = [replace(record, correct=True) for record in own]
        for budget in (1024, 256):
            write_evaluation(run / str(budget) / "own", own, budget=budget)
        write_evaluation(run / "256" / "noise", wrong, budget=256)
        write_evaluation(
            run / "256" / "noise-replay", replayed, budget=256, probe="noise", replay=True
        )
        return run

    return write


def test_an_evaluation_is_one_arm_with_its_budgets_in_order(evaluated):
    found = read_runs([evaluated("mine")])
    assert list(found.records) == [
        ("mine", "256", "own", 0),
        ("mine", "256", "noise", 0),
        ("mine", "256", "noise (replay)", 0),
        ("mine", "1024", "own", 0),
    ]
    assert found.shown(Condition("mine", "256", "noise (replay)", 0)).name.startswith("noise/0/"), (
        "a replayed probe shows noise"
    )
    assert found.run_comparisons == []
    assert "comparisons" not in found.results
    table = probe_table(found.results, lambda arm, budget: budget)
    assert table.columns[2:] == ("noise", "noise (replay)")
    assert [cell.text.split()[0] for cell in table.rows[0][2:]] == ["+100.0", "0.0"]
    assert [bool(cell.href) for cell in table.rows[0][2:]] == [True, False]
    assert "Replay: " in table.note


def test_several_runs_are_compared_with_the_first(evaluated):
    found = read_runs([evaluated("a"), evaluated("b")])
    assert [
        (one.metric, one.left, one.right)
        for one in found.run_comparisons
        if one.metric == "accuracy"
    ] == [
        ("accuracy", ("a", "256"), ("b", "256")),
        ("accuracy", ("a", "1024"), ("b", "1024")),
    ]


def test_runs_of_one_name_carry_a_unique_part_of_their_path(evaluated):
    first = evaluated("x/run")
    second = evaluated("y/run")
    assert read_runs([first, second]).runs == ["x/run", "y/run"]
    with pytest.raises(RunError, match="given twice"):
        read_runs([first, first])


def test_a_training_run_has_curves_episodes_and_the_data_it_learnt_from(tmp_path, pictures):
    write_training(tmp_path / "run", pictures)
    found = read_runs([tmp_path / "run"])
    assert [row["reward"] for row in found.curves["run"]] == [0.5, 0.7]
    assert [record.step for record in found.training["run", 0]] == [1, 1]
    assert found.data["learnt"].budgets == {"16": 1, "32": 1}


def write_demo(demo, pictures, arms=("stage1", "stage1-fixed-budget"), kept=2):
    """Two seeds of a demo's folders; the answers of the first are wrong, those of the second
    right."""
    for seed in (0, 1):
        for arm in arms:
            rewards = (0.5 + seed / 10, 0.7)
            write_training(
                demo / f"seed{seed}" / arm, pictures, seed=seed, kept=kept, rewards=rewards
            )
            place = demo / f"seed{seed}" / "evaluate" / arm / "small"
            own = [made_up_episode(n, pictures[0], correct=bool(seed)) for n in range(2)]
            write_evaluation(place / "own", own, arm=arm, seed=seed)
            took = 0.25 + seed
            write_timings(
                place, [Timing(concurrency=1, questions=2, median=took, p95=1, per_second=4)]
            )


@pytest.mark.parametrize("study", [False, True])
def test_the_page_says_every_alarm_of_a_training_with_its_steps(tmp_path, pictures, study):
    if study:
        write_demo(tmp_path / "run", pictures, arms=("stage2",))
    else:
        write_training(tmp_path / "run", pictures)
    rows = [
        {"step": 1, "reward": 1, "alarms": []},
        {"step": 2, "reward": 1, "alarms": ["truncated"]},
        {"step": 3, "reward": 1, "alarms": ["truncated", "a code of another version"]},
    ]
    for file in (tmp_path / "run").rglob("metrics.jsonl"):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(tmp_path / "report", read_runs([tmp_path / "run"]), title="alarms")
    found = re.findall(r'<p class="fault">(Alarm.*?)</p>', page.read_text())
    names = ["stage2, seed 0", "stage2, seed 1"] if study else ["run"]
    assert [line.split(": ")[0] for line in found] == [
        f"Alarm in training ({name})" for name in names for _ in range(2)
    ]
    assert "the token limit ends replies of most episodes" in found[0]
    assert found[0].endswith("; in 2 of 3 steps, first in step 2")
    assert found[1].endswith(": a code of another version; in 1 of 3 steps, first in step 3")


def test_a_demo_has_its_arms_seeds_and_seconds(tmp_path, pictures):
    write_demo(tmp_path / "demo", pictures)
    found = read_runs([tmp_path / "demo"])
    page = write_report(tmp_path / "out", found, title="T", shown=0).read_text()
    assert '<section id="arms">\n<h2>Arms</h2>\n<dl><dt>stage1</dt>' in page
    assert ("stage1", "small", "own", 1) in found.records
    conditions = found.results["conditions"]
    assert {arm: some["small"]["seconds_alone"] for arm, some in conditions.items()} == {
        "stage1": 0.25,
        "stage1-fixed-budget": 0.25,
    }
    assert list(found.curves) == ["stage1", "stage1-fixed-budget"]
    ablations = found.results["comparisons"]["ablations"]
    assert {(row["left"][0], row["right"][0]) for row in ablations} == {
        ("stage1-fixed-budget", "stage1")
    }


@pytest.mark.parametrize("kept", [0, 2])
def test_the_curves_of_a_demo_are_those_of_its_first_seed(tmp_path, pictures, kept):
    write_demo(tmp_path / "demo", pictures, kept=kept)
    curves = read_runs([tmp_path / "demo"]).curves
    assert [row["reward"] for row in curves["stage1"]] == [0.5, 0.7]


def test_a_study_without_results_has_the_planned_comparisons_and_ratios(tmp_path, pictures):
    write_demo(tmp_path / "demo", pictures, arms=("baseline", "stage1"))
    found = read_runs([tmp_path / "demo"]).results["comparisons"]
    assert [(row["metric"], row["left"], row["right"]) for row in found["differences"]] == [
        ("accuracy", ["stage1", "small"], ["baseline", "small"])
    ]
    assert set(found["ratios"]) == {"visual_tokens", "seconds_alone"}


def test_several_studies_keep_what_each_compares_within_itself(tmp_path, pictures):
    write_demo(tmp_path / "one", pictures)
    write_demo(tmp_path / "two", pictures)
    found = read_runs([tmp_path / "one", tmp_path / "two"]).results["comparisons"]
    rows = [row for row in found["ablations"] if row["metric"] == "accuracy"]
    assert [row["name"] for row in rows] == [
        f"{run}/stage1-fixed-budget small - {run}/stage1 small" for run in ("one", "two")
    ]
    assert rows[1]["left"] == ["two/stage1-fixed-budget", "small"]


def test_a_budget_that_was_not_chosen_is_counted_as_none():
    assert budget_histogram([64, None, 16, 16]) == {"16": 2, "64": 1, "none": 1}


def test_pictures_are_found_from_another_working_folder(tmp_path, pictures, monkeypatch):
    run = tmp_path / "out" / "run" / "own"
    write_evaluation(run, [made_up_episode(0, pictures[0], correct=True)])
    assert str(tmp_path) not in (run / "samples.jsonl").read_text()
    for folder in ("out", "pictures"):
        shutil.copytree(tmp_path / folder, tmp_path / "elsewhere" / folder)
    monkeypatch.chdir(tmp_path / "elsewhere" / "pictures")
    (record,) = read_runs([tmp_path / "elsewhere" / "out" / "run"]).records[
        Condition("run", "8", "own", 0)
    ]
    assert record.sample.image == tmp_path / "elsewhere" / "pictures" / "0.png"


def test_no_run_at_all_is_one_sentence():
    with pytest.raises(RunError, match="no run given"):
        read_runs([])


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match="name what lfpc demo, lfpc train or lfpc eval wrote"):
            read_runs([folder])


def test_the_command_writes_a_report_of_two_runs_with_their_differences(
    tmp_path, evaluated, capsys
):
    runs = [str(evaluated("a", lambda n: n == 0)), str(evaluated("b"))]
    assert cli.main(["report", *runs, "--out", str(tmp_path / "report")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"open {tmp_path / 'report' / 'index.html'}"
    table = (tmp_path / "report" / "tables" / "runs.md").read_text()
    assert "| a \u2212 b, 256 tokens: accuracy | \u221275.0 [" in table, (
        "right on 4 of 4 against 1 of 4"
    )
    assert cli.main(["report", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith(f"lfpc: {tmp_path / 'nothing'}: no such folder")
