"""Answer rules of resolution selection with a judge for free answers that no rule matches."""

from lfpc.answers import check_answer
from lfpc.errors import PolicyError
from lfpc.evaluation.judge import Judge, JudgeCase
from lfpc.samples import Sample
from lfpc.selection.ladder import RULES, AnswerRules


def judged_rules(judge: Judge) -> AnswerRules:
    """Answer rules that ask the judge about free answers which differ as texts and are not numbers.

    They raise PolicyError where the judge does not decide: the sample stays open, as its budget
    would depend on the failure.
    """

    def means(sample: Sample, reference: str, said: str) -> bool:
        found = judge.decide([JudgeCase(sample.question, reference, said)])[0]
        if found.correct is None:
            raise PolicyError(f"the judge did not decide: {found.why}")
        return found.correct

    def same(sample: Sample, first: str, said: str) -> bool:
        if RULES.same(sample, first, said):
            return True
        return (
            not sample.options
            and bool(first.strip() and said.strip())
            and means(sample, first, said)
        )

    def right(sample: Sample, said: str) -> bool:
        verdict = check_answer(said, sample)
        if verdict.correct or sample.options or verdict.method != "text":
            return verdict.correct
        return means(sample, sample.answer, said)

    return AnswerRules(same, right)
