"""A judge in training decides free answers that no rule matches, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lfpc.answers import Verdict
from lfpc.boxes import WHOLE
from lfpc.dialogue import Answer, Malformed, Reason, Reply, Turn
from lfpc.episode import Episode, Stop
from lfpc.errors import ConfigError
from lfpc.evaluation.judge import Judgement
from lfpc.images import View
from lfpc.rewards import PAPER, episode_reward
from lfpc.samples import Sample
from lfpc.training.judged import judged

QUESTION = Sample(id="q", image=Path("q.png"), question="What is it?", answer="a red car")


class Agrees:
    """Says yes to "car", no to "van", and does not decide "hm"."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def decide(self, cases: Sequence, *, progress: bool = False) -> list[Judgement]:
        self.asked += [case.reply for case in cases]
        assert {case.reference for case in cases} == {"a red car"}
        return [Judgement(None if one.reply == "hm" else "car" in one.reply) for one in cases]


def said(text: str | None, sample: Sample = QUESTION) -> Episode:
    action = Malformed(Reason.NO_ACTION, "nothing") if text is None else Answer(text)
    turns = (Turn(Reply(text or "..."), action),)
    first = View(Image.new("RGB", (28, 28)), WHOLE)
    return Episode(sample, first, turns, Stop.MAX_TURNS if text is None else Stop.ANSWERED)


def test_only_free_answers_that_no_rule_matches_are_judged() -> None:
    options = replace(QUESTION, options=("a red car", "a van"), answer="A")
    number = replace(QUESTION, answer="3")
    some = [
        said("the car, red"),
        said("a red car"),  # a rule knows
        said("a van"),
        said("hm"),
        said(None),
        said("  "),
        said("B", options),
        said("4", number),
    ]
    judge = Agrees()
    found, undecided = judged(some, judge)
    assert judge.asked == ["the car, red", "a van", "hm"]
    assert undecided == 1
    assert [one.verdict.correct for one in found] == [True, True, *[False] * 6]
    assert [one.verdict.method for one in found[:4]] == ["judge", "text", "judge", "text"]
    assert found[3:] == some[3:]
    assert episode_reward(found[0], PAPER).accuracy == 1.0
    assert judged(some[1:2], Agrees()) == (some[1:2], 0)


def test_a_judged_verdict_is_the_episodes() -> None:
    one = said("van")
    assert not one.verdict.correct
    assert replace(one, judged=Verdict(True, "judge")).verdict.correct


def test_verl_has_no_judge(tmp_path: Path) -> None:
    from lfpc.cli.training import Train

    words = ("--engine", "verl", "--judge", "http://127.0.0.1:1/v1", "--dry-run")
    with pytest.raises(ConfigError, match="--judge needs the local engine"):
        Train(preset="stage1", options=words).run()


@pytest.mark.slow  # imports torch
def test_the_command_hands_the_judge_to_the_run(tmp_path: Path, monkeypatch) -> None:
    from lfpc.cli.training import Train
    from lfpc.training import local

    seen = {}

    def train(run, *, judge, **options):
        seen.update(model=run.judge, judge=judge)
        return tmp_path

    monkeypatch.setattr(local, "train", train)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    words = ("--data", str(tmp_path), "--init", str(tmp_path), "--out", str(tmp_path / "run"))
    asked = ("--judge", "http://127.0.0.1:1/v1", "--judge-model", "agrees")
    Train(preset="stage1", options=(*words, *asked)).run()
    assert seen["model"] == seen["judge"].config.model == "agrees"
    Train(preset="stage1", options=words).run()
    assert (seen["model"], seen["judge"]) == ("", None)


@pytest.mark.slow
def test_a_run_is_paid_by_the_judge(tmp_path: Path) -> None:
    from lfpc.mini.folders import BASE_SETTINGS, CROPS, base_checkpoint, write_split
    from lfpc.samples import write_samples
    from lfpc.storage.runs import RunFolder
    from lfpc.training.config import TrainConfig
    from lfpc.training.local import train

    class Reads:
        def decide(self, cases: Sequence, *, progress: bool = False) -> list[Judgement]:
            return [Judgement(one.reply in one.reference.split()) for one in cases]

    marks = write_split(tmp_path / "marks", "validation", 2, relations=0.0)
    data = tmp_path / "data"
    write_samples([replace(one, answer=f"the letter {one.answer} there") for one in marks], data)
    run = TrainConfig(
        first_view="fixed",
        fixed_budget=256,
        crop=CROPS,
        max_turns=BASE_SETTINGS.max_turns,
        max_new_tokens=BASE_SETTINGS.max_new_tokens,
        freeze_vision=True,
        data=data,
        init=base_checkpoint(),
        steps=1,
        prompts_per_step=2,
        group_size=2,
        temperature=0.1,
    )
    accuracy = {}
    for name, judge in (("rules", None), ("judge", Reads())):
        out = tmp_path / name
        train(replace(run, out=out, judge=name), progress=False, judge=judge)
        (numbers,) = RunFolder(out).metrics()
        accuracy[name] = numbers["accuracy"]
        assert numbers.get("undecided") == (None if judge is None else 0)
    assert accuracy["rules"] == 0
    assert accuracy["judge"] > 0.5
