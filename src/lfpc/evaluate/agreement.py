"""When two free answers say the same: by rule, and by the judge where no rule matches them. For resolution selection."""

from itertools import count

from lfpc.answers import check_answer
from lfpc.data.ladder import RULES, AnswerRules
from lfpc.errors import RunError
from lfpc.evaluate.judge import Case, Judge
from lfpc.samples import Sample


def judged_rules(judge: Judge) -> AnswerRules:
    """Rules that ask the judge about answers to questions without options which are not the same text, nor two numbers.

    What the judge does not decide counts as another answer. As many undecided ones in a row as `give_up_after` end the run with a
    RunError.
    """
    undecided = count(1)

    def means(sample: Sample, reference: str, said: str) -> bool:
        nonlocal undecided
        judgement = judge.decide([Case(sample.question, reference, said)])[0]
        if judgement.correct is not None:
            undecided = count(1)
        elif next(undecided) >= judge.config.give_up_after:
            raise RunError(
                f"the judge at {judge.config.url} did not decide {judge.config.give_up_after} answers in a row, the last with: "
                f"{judgement.why}; what it decided is kept, the same command goes on from it"
            )
        return bool(judgement.correct)

    def same(sample: Sample, first: str, said: str) -> bool:
        if RULES.same(sample, first, said):
            return True
        return not sample.options and bool(first.strip() and said.strip()) and means(sample, first, said)

    def right(sample: Sample, said: str) -> bool:
        verdict = check_answer(said, sample)
        if verdict.correct or sample.options or verdict.method != "text":
            return verdict.correct
        return means(sample, sample.answer, said)

    return AnswerRules(same, right)
