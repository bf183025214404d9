"""The study at its smallest, and its measures by hand."""

import json
from dataclasses import replace
from math import inf, log, nan
from pathlib import Path
from typing import get_args

import pytest
from in_turn import in_turn
from reports import made_up_record

from lfpc.errors import ConfigError, LfpcError
from lfpc.mini.arms import GROUPS, Data, described
from lfpc.mini.config import StudyConfig

pytestmark = pytest.mark.slow
BUDGETS = {"25": 25, "64": 64, "256": 256}


def test_the_area_weighs_budgets_by_their_logarithm():
    from lfpc.mini.study import area_records

    scores = {"q": (0, 1, 1), "r": (1, 0, 0), "s": (1, 1, 1)}
    by_budget = [
        [made_up_record(name, bool(right[place])) for name, right in scores.items()]
        for place in range(3)
    ]
    found = {one.sample.id: one.correct for one in area_records(by_budget, BUDGETS)}
    low, high = log(64 / 25), log(256 / 64)
    assert found["s"] == pytest.approx(1)
    assert found["q"] == pytest.approx((low / 2 + high) / (low + high))
    assert found["r"] == pytest.approx(low / 2 / (low + high))
    by_budget[0] = by_budget[0][1:]  # a question that one budget did not ask has no area
    by_budget[2][2] = made_up_record("s", None, error="no reply")  # nor has one that failed
    assert {one.sample.id for one in area_records(by_budget, BUDGETS)} == {"r"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_seed": -1},
        {"budgets": (64, 25)},
        {"budgets": (0, 64)},
        {"seeds": 0},
        {"ladder": (25, 256)},
        {"ladder": (256, 3)},
        {"learning_rate": -1.0},
        {"learning_rate": nan},
        {"learning_rate": inf},
    ],
)
def test_impossible_values_are_refused_before_anything_runs(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        StudyConfig(**wrong)


def test_a_folder_is_continued_only_by_the_same_study(tmp_path, monkeypatch):
    """Everything was trained, so nothing but these checks would read the settings again."""
    from lfpc.mini.study import study

    monkeypatch.setattr("lfpc.mini.trials.run_jobs", in_turn)
    config = StudyConfig(
        out=tmp_path,
        group="laziness",
        seeds=1,
        steps=1,
        questions=2,
        budgets=(25, 64),
        ladder=(256, 25),
        train_samples=4,
        hard_samples=4,
    )
    study(config, progress=False)
    before = (tmp_path / "results.json").read_text()
    for change, says in (
        ({"learning_rate": 1e-4}, "`learning_rate` is 0.0003 in the existing run but 0.0001 here"),
        ({"split": "wide-large"}, "questions of lfpc-mini/wide-test, not of lfpc-mini/wide-large"),
        ({"questions": 1}, "wide-test holds 2 samples, not 1; ask for 2 or more"),
        ({"train_samples": 6}, "wide holds 4 samples, not 6; ask for 4, or use another folder"),
    ):
        with pytest.raises(LfpcError) as refused:
            study(replace(config, **change), progress=False)
        assert says in str(refused.value)
    assert (tmp_path / "results.json").read_text() == before
    assert study(replace(config, questions=3), progress=False).is_file()
    for run in (tmp_path / "seed100").glob("*/checkpoints/*"):  # as of a run that kept the last
        if run.name == "step-000001":
            run.rename(run.with_name("step-000004"))
    with pytest.raises(LfpcError, match="was trained without keeping step-000001"):
        study(replace(config, steps=4, group="laziness"), progress=False)


@pytest.mark.parametrize("steps", [1, 9, 80])
@pytest.mark.parametrize("group", GROUPS)
def test_every_planned_comparison_is_of_arms_that_are_asked(group, steps):
    from lfpc.mini.study import _trials, planned

    config = StudyConfig(group=group, steps=steps)
    folders = dict.fromkeys(get_args(Data), Path("data"))
    asked = _trials(config, Path("base"), folders).asked
    arms = {one.arm for one in asked}
    assert len({(one.arm, one.seed) for one in asked}) == len(asked)
    plans = planned(config)
    assert {side for plan in plans for side in (plan.left, plan.right)} <= arms
    assert len(set(plans)) == len(plans)
    assert all(arm.parent in GROUPS[group] for arm in GROUPS[group].values() if arm.parent)


def test_arms_that_are_no_presets_are_described():
    texts = described({**GROUPS["gap"], **GROUPS["grounding"]})
    assert "stage2" not in texts
    assert texts["stage2-l1-box"] == "stage2, --reward.l1-scale box"
    assert texts["fixed-25"] == "stage1-fixed-budget, --fixed-budget 25"
    assert texts["selection-lower"] == "stage1, with budgets one level lower"
    assert texts["stage2-easy-no-l1"] == "stage2, --reward.iou-weight 1.0, on the easy samples"


@pytest.mark.parametrize(
    ("steps", "questions"), [(1, 2), pytest.param(4, 6, marks=pytest.mark.long)]
)
def test_a_study_trains_compares_and_reuses_what_is_there(tmp_path, steps, questions, monkeypatch):
    from lfpc.mini.study import study

    if steps == 1:  # the processes are in the long case
        monkeypatch.setattr("lfpc.mini.trials.run_jobs", in_turn)
    config = StudyConfig(
        out=tmp_path / "study",
        group="laziness",
        seeds=1,
        steps=steps,
        questions=questions,
        budgets=(25, 64),
        ladder=(256, 64, 25),
        train_samples=8,
        hard_samples=8,
    )
    page = study(config, progress=False)
    text = page.read_text()
    assert text.index("Planned comparisons") < text.index(f"stage1-{steps} \u2212 baseline-{steps}")
    results = json.loads((config.out / "results.json").read_text())
    trained = {f"{arm}-{n}" for arm in ("baseline", "stage1") for n in range(1, steps + 1)}
    assert set(results["conditions"]) == trained | {"base"}
    assert set(results["conditions"]["base"]["64"]["probes"]) == {
        "noise",
        "no-tool",
        "truth",
        "random",
        "whole",
    }
    rows = json.loads((config.out / "study.json").read_text())["comparisons"]
    assert [(row["metric"], row["left_arm"], row["right_arm"], row["n"]) for row in rows] == [
        ("noise_drop", f"baseline-{steps}", "base", questions),
        ("noise_drop", f"stage1-{steps}", "base", questions),
        ("noise_drop", f"stage1-{steps}", f"baseline-{steps}", questions),
    ]
    lowered = json.loads((config.out / "data/wide/lower/samples.jsonl").read_text().split("\n")[0])
    assert lowered["budget"] in (64, 25)
    before = {file: file.stat().st_mtime_ns for file in config.out.rglob("*.safetensors")}
    study(config, progress=False)
    assert before == {file: file.stat().st_mtime_ns for file in config.out.rglob("*.safetensors")}
