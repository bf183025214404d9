"""The demo end to end, at its smallest: every part runs, the second call reuses everything."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_demo_writes_results_and_page_and_reuses_them(tmp_path):
    from lfpc.mini.config import DemoConfig
    from lfpc.mini.demo import demo

    config = DemoConfig(
        out=tmp_path / "demo",
        questions=18,
        steps=1,
        stage2_steps=1,
        train_samples=8,
        hard_samples=8,
        ladder=(256, 25),
    )
    page = demo(config, progress=False)
    assert page.is_file()
    results = json.loads((config.out / "results.json").read_text())
    assert (results["questions"], results["seeds"]) == (18, [0])
    assert set(results["arms"]) == {"baseline", "stage1", "stage2"}
    for arm in results["arms"].values():
        assert set(arm) == {"small", "full"}
        for setting in arm.values():
            assert 0 <= setting["accuracy"] <= 1
            assert setting["accuracy_ci"][0] <= setting["accuracy"] <= setting["accuracy_ci"][1]
            for key in (
                "noise_drop",
                "noise_drop_ci",
                "iou",
                "crop_area",
                "visual_tokens",
                "seconds_per_question",
            ):
                assert key in setting
        assert arm["small"]["visual_tokens"] < arm["full"]["visual_tokens"]
    trained = {file: file.stat().st_mtime_ns for file in config.out.rglob("*.safetensors")}
    episodes = {file: file.stat().st_mtime_ns for file in config.out.rglob("episodes.jsonl")}
    demo(config, progress=False)
    assert trained == {file: file.stat().st_mtime_ns for file in config.out.rglob("*.safetensors")}
    assert episodes == {
        file: file.stat().st_mtime_ns for file in config.out.rglob("episodes.jsonl")
    }
