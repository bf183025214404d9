"""When two free answers say the same: by rule, and by the judge where no rule matches them. For
resolution selection.
"""

from lfpc.answers import check_answer
from lfpc.evaluation.judge import Judge, JudgeCase
from lfpc.samples import Sample
from lfpc.selection.ladder import RULES, AnswerRules


def judged_rules(judge: Judge) -> AnswerRules:
    """Rules that ask the judge about answers to questions without options which are not the same
    text, nor two numbers.

    What the judge does not decide counts as another answer, until the judge gives up.
    """

    def means(sample: Sample, reference: str, said: str) -> bool:
        return bool(judge.decide([JudgeCase(sample.question, reference, said)])[0].correct)

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
