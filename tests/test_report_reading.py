"""Run folders of every kind, read for a report, and the command that writes one."""

import json

import pytest
from reports import CONFIG, made_up_row, noise_pictures

from lfpc import cli
from lfpc.errors import RunError
from lfpc.report.reading import read_runs
from lfpc.samples import Sample, write_samples


def write_rows(folder, rows, **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps(
            {
                "kind": "train" if "prompts_per_step" in config else "evaluation",
                "format": 2,
                "config": {**CONFIG, "budget": 8, "probe": folder.name, **config},
            }
        )
    )
    (folder / "environment.json").write_text(json.dumps({"python": "3.11.7"}))
    (folder / "episodes.jsonl").write_text(
        "".join(json.dumps({"key": row["sample"], **row}) + "\n" for row in rows)
    )


def write_training(folder, pictures, **config):
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
    kept = [
        {
            **made_up_row(n, pictures[0], correct=True),
            "step": 1,
            "reward": {"accuracy": 1.0, "total": 1.0},
        }
        for n in range(2)
    ]
    write_rows(folder, kept, data=str(data), prompts_per_step=8, **config)
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "reward": 0.5}\n{"step": 2, "reward": 0.7}\n'
    )


@pytest.fixture
def pictures(tmp_path):
    return noise_pictures(tmp_path / "pictures", 2)


@pytest.fixture
def evaluated(tmp_path, pictures):
    """Writes what `lfpc eval` writes, at two budgets, one of them probed; returns the folder."""

    def write(name, right=lambda n: True):
        run = tmp_path / name
        rows = [made_up_row(n, pictures[n % 2], correct=right(n)) for n in range(4)]
        for budget in (1024, 256):
            write_rows(run / str(budget) / "own", rows, budget=budget)
        write_rows(run / "256" / "noise", [{**row, "correct": False} for row in rows], budget=256)
        write_rows(
            run / "256" / "noise-replay",
            [{**row, "correct": True} for row in rows],
            budget=256,
            probe="noise",
            replay=True,
        )
        return run

    return write


def test_an_evaluation_is_one_arm_with_its_budgets_in_order(evaluated):
    found = read_runs([evaluated("mine")])
    assert list(found.rows) == [
        ("mine", "256", "own", 0),
        ("mine", "256", "noise", 0),
        ("mine", "256", "noise (replay)", 0),
        ("mine", "1024", "own", 0),
    ]
    assert found.shown(("mine", "256", "noise (replay)", 0)).name.startswith("noise/0/"), (
        "a replayed probe shows noise"
    )
    assert found.further == []


def test_several_runs_are_compared_with_the_first(evaluated):
    found = read_runs([evaluated("a"), evaluated("b")])
    assert [
        (one.metric, one.left, one.right) for one in found.further if one.metric == "accuracy"
    ] == [
        ("accuracy", ("b", "256"), ("a", "256")),
        ("accuracy", ("b", "1024"), ("a", "1024")),
    ]


def test_runs_of_one_name_carry_as_much_of_their_path_as_tells_them_apart(evaluated):
    first = evaluated("x/run")
    second = evaluated("y/run")
    assert read_runs([first, second]).runs == ["x/run", "y/run"]
    with pytest.raises(RunError, match="named twice"):
        read_runs([first, first])


def test_a_training_run_has_curves_episodes_and_the_data_it_learnt_from(tmp_path, pictures):
    write_training(tmp_path / "run", pictures)
    found = read_runs([tmp_path / "run"])
    assert [row["reward"] for row in found.curves["run"]] == [0.5, 0.7]
    assert [row["step"] for row in found.training["run", 0]] == [1, 1]
    assert found.data["learnt"].budgets == {"16": 1, "32": 1}


def test_a_demo_has_its_arms_seeds_and_seconds(tmp_path, pictures):
    demo = tmp_path / "demo"
    for seed in (0, 1):
        for arm in ("stage1", "stage1-fixed-budget"):
            write_training(demo / f"seed{seed}" / arm, pictures)
            run = demo / f"seed{seed}" / "evaluate" / arm / "small"
            write_rows(
                run / "own", [made_up_row(n, pictures[0], correct=bool(seed)) for n in range(2)]
            )
            (run / "seconds.json").write_text("0.25")
    found = read_runs([demo])
    assert ("stage1", "small", "own", 1) in found.rows
    assert found.seconds == {("stage1", "small"): 0.25, ("stage1-fixed-budget", "small"): 0.25}
    assert list(found.curves) == ["stage1", "stage1-fixed-budget"]
    assert {(one.left[0], one.right[0]) for one in found.further} == {
        ("stage1-fixed-budget", "stage1")
    }


def test_pictures_are_found_from_another_working_folder(tmp_path, pictures):
    run = tmp_path / "out" / "run" / "own"
    write_rows(run, [{**made_up_row(0, pictures[0], correct=True), "image": "pictures/0.png"}])
    found = read_runs([tmp_path / "out" / "run"])
    assert found.rows["run", "8", "own", 0][0]["image"] == str(tmp_path / "pictures" / "0.png")


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
    assert "| b 256 \u2212 a 256: accuracy | +75.0 [" in table, "right on 4 of 4 against 1 of 4"
    assert cli.main(["report", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith(f"lfpc: {tmp_path / 'nothing'}: no such folder")
