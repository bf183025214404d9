"""Resolution selection: the first level at which the answer is no longer the one at the original."""

import json

import pytest
from PIL import Image

from lfpc.data.select import SelectConfig, select
from lfpc.errors import ConfigError, RunError
from lfpc.images import visual_tokens
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.samples import Sample

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
LADDER = (64, 16, 4)


@pytest.fixture
def samples(tmp_path):
    Image.new("RGB", (224, 224), "grey").save(tmp_path / "p.png")
    return [Sample(id=name, image=tmp_path / "p.png", question=name, answer="A") for name in ("early", "late", "never", "wrong")]


#            64 tokens  16   4      first change
ANSWERS = {
    "early": {64: "A", 16: "B", 4: "A"},  # 16: what comes after it does not matter
    "late": {64: "A", 16: "a", 4: "C"},  # 4: "a" is the same answer as "A"
    "never": {64: "A", 16: "A", 4: "A"},
    "wrong": {64: "B", 16: "A", 4: "A"},  # 16: compared with its own answer at the original, not with the truth
}


def reader(asked):
    def reply(context):
        level = visual_tokens(context.first_view.size)
        asked.append((context.question, level))
        return f"<answer>{ANSWERS[context.question][level]}</answer>"

    return ScriptedPolicy(reply)


def run(samples, out, asked, **options):
    return select(samples, reader(asked), protocol=PROTOCOL, config=SelectConfig(ladder=LADDER, **options), out=out, progress=False)


def test_budget_is_the_first_level_whose_answer_differs_from_the_one_at_the_original(samples, tmp_path):
    asked = []
    found = run(samples, tmp_path / "out", asked)
    assert {s.id: s.budget for s in found.samples} == {"early": 16, "late": 4, "never": 4, "wrong": 16}
    assert (found.levels, found.never, found.wrong, found.dropped) == ({16: 2, 4: 1}, 1, 1, 0)
    assert ("early", 4) not in asked, "a sample that differed is not asked at lower levels"


@pytest.mark.parametrize(("options", "kept"), [
    ({"never": "drop"}, {"early", "late", "wrong"}),
    ({"wrong": "drop"}, {"early", "late", "never"}),
    ({"never": "drop", "wrong": "drop"}, {"early", "late"}),
])  # fmt: skip
def test_options_drop_samples_and_the_counts_are_written(samples, tmp_path, options, kept):
    found = run(samples, tmp_path / "out", [], **options)
    assert {s.id for s in found.samples} == kept
    summary = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert summary == {"samples": 4, "levels": {"16": 2, "4": 1}, "never": 1, "wrong": 1, "dropped": 4 - len(kept)}


def test_second_run_asks_nothing_and_chooses_the_same(samples, tmp_path):
    first = run(samples, tmp_path / "out", [])
    asked = []
    assert run(samples, tmp_path / "out", asked) == first
    assert asked == []


def test_another_model_may_not_use_the_same_answers(samples, tmp_path):
    run(samples, tmp_path / "out", [])
    with pytest.raises(RunError, match="model"):
        run(samples, tmp_path / "out", [], model="another")


def test_ladder_must_fall():
    with pytest.raises(ConfigError, match=r"falling positive budgets, got \(4, 16\)"):
        SelectConfig(ladder=(4, 16))
