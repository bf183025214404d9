"""The demo end to end, at its smallest: every part runs, the second call reuses everything."""

import json

import pytest
from in_turn import in_turn

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("questions", [4, pytest.param(18, marks=pytest.mark.long)])
def test_demo_writes_results_and_page_and_reuses_them(tmp_path, questions, monkeypatch):
    from lfpc.mini.config import DemoConfig
    from lfpc.mini.demo import demo

    if questions == 4:  # the processes are in the long case
        monkeypatch.setattr("lfpc.mini.trials.run_jobs", in_turn)
    config = DemoConfig(
        out=tmp_path / "demo",
        questions=questions,
        steps=1,
        train_samples=8,
        hard_samples=8,
        ladder=(256, 25),
    )
    page = demo(config, progress=False)
    assert page.is_file()
    results = json.loads((config.out / "results.json").read_text())
    assert (results["questions"], results["seeds"]) == (questions, [0])
    conditions = results["conditions"]
    assert set(conditions) == {
        "baseline",
        "baseline-matched",
        "stage1",
        "stage1-continued",
        "stage2",
    }
    for arm in conditions.values():
        assert set(arm) == {"small", "middle", "full"}
        for found in arm.values():
            summary = found["summary"]
            assert 0 <= summary["accuracy"] <= 1
            low, high = summary["accuracy_ci"]
            assert low <= summary["accuracy"] <= high
            assert {"iou", "crop_area", "visual_tokens"} <= set(summary)
            assert {"delta", "low", "high"} <= set(found["probes"]["noise"]["all"])
            (timing,) = summary["timings"]
            assert found["seconds_alone"] == timing["median"]
            assert found["cpu_seconds_alone"] == timing["cpu"] > 0
            assert len(timing["each"]) == min(15, questions - 1)  # the first one warms
        small, full = arm["small"]["summary"], arm["full"]["summary"]
        assert small["visual_tokens"] < full["visual_tokens"]
    compared = results["comparisons"]
    assert {tuple(row["left"]) for row in compared["differences"]} >= {("stage1", "small")}
    assert compared["ratios"]["visual_tokens"] > 1
    trained = {file: file.stat().st_mtime_ns for file in config.out.rglob("*.safetensors")}
    episodes = {file: file.stat().st_mtime_ns for file in config.out.rglob("episodes.jsonl")}
    monkeypatch.setattr(
        "lfpc.mini.trials.run_jobs", lambda *_: pytest.fail("nothing is left to do")
    )
    demo(config, progress=False)
    assert trained == {file: file.stat().st_mtime_ns for file in config.out.rglob("*.safetensors")}
    assert episodes == {
        file: file.stat().st_mtime_ns for file in config.out.rglob("episodes.jsonl")
    }
