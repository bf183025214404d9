"""A judge in training: free answers that no rule matches may still be right."""

from collections.abc import Sequence
from dataclasses import replace

from lfpc.answers import Verdict
from lfpc.episode import Episode
from lfpc.evaluation.judge import Judge, JudgeCase


def judged(episodes: Sequence[Episode], judge: Judge) -> tuple[list[Episode], int]:
    """The episodes with the judge's verdicts, and the number of those that it did not decide, which
    stay wrong.

    It is asked about wrong free answers that differ from the reference as texts, as in an
    evaluation; never about options and numbers. Equal answers to one question are asked once, and
    verdicts are stored, so a group costs few requests.

    Raises:
        RunError: the judge's server refuses, or fails again and again.
    """
    open_ = [
        n
        for n, one in enumerate(episodes)
        if one.answer and one.answer.strip() and _is_open(one.verdict) and not one.sample.options
    ]
    cases = [
        JudgeCase(episodes[n].sample.question, episodes[n].sample.answer, episodes[n].answer or "")
        for n in open_
    ]
    found = list(episodes)
    undecided = 0
    for n, judgement in zip(open_, judge.decide(cases) if cases else (), strict=True):
        if judgement.correct is None:
            undecided += 1
        else:
            found[n] = replace(episodes[n], judged=Verdict(judgement.correct, "judge"))
    return found, undecided


def _is_open(verdict: Verdict) -> bool:
    return not verdict.correct and verdict.method == "text"
