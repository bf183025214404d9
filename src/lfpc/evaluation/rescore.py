"""Score an evaluation again from its records, without new replies: by the current rules and an
optional judge.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lfpc.answers import check_answer
from lfpc.evaluation.judge import Judge, JudgeCase
from lfpc.evaluation.places import find_evaluations
from lfpc.evaluation.stored import names_below, read_results, results_root, update_results
from lfpc.metrics.summary import Records
from lfpc.records import EpisodeRecord, log_record, read_records
from lfpc.samples import LETTERS
from lfpc.storage.files import FolderLock


def rescore(
    records: Records, judge: Judge | None = None, *, progress: bool = False
) -> list[EpisodeRecord]:
    """Records with new verdicts; failed records are unchanged.

    Rules decide first. The judge decides readable answers that no rule matches: `method` is then
    "judge" and `judge` its name, or "undecided" and `undecided` the reason.

    Raises:
        RunError: the judge's server refuses or does not respond.
    """
    ruled = [record if record.failed else _by_rule(record) for record in records]
    unmatched = [n for n, record in enumerate(ruled) if judge and needs_judge(record)]
    if judge is None or not unmatched:
        return ruled
    name = f"{judge.config.model} (prompt {judge.identity['prompt_version']})"
    judgements = judge.decide([_case(ruled[n]) for n in unmatched], progress=progress)
    for n, judgement in zip(unmatched, judgements, strict=True):
        if judgement.correct is None:
            changes: dict[str, Any] = {"method": "undecided", "undecided": judgement.why}
        else:
            changes = {"correct": judgement.correct, "method": "judge", "judge": name}
        ruled[n] = replace(ruled[n], **changes)
    return ruled


def needs_judge(record: EpisodeRecord) -> bool:
    """Whether no rule can match the answer: it is neither an option nor the reference's text, and
    the two are not numbers.
    """
    return (
        not record.correct
        and record.method in ("unparsed", "text")
        and bool((record.said or "").strip())
    )


def _by_rule(record: EpisodeRecord) -> EpisodeRecord:
    verdict = check_answer(record.said, record.sample)
    return replace(record, correct=verdict.correct, method=verdict.method, judge="", undecided="")


def _case(record: EpisodeRecord) -> JudgeCase:
    sample = record.sample
    options: Sequence[str] = sample.options
    listed = [f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False)]
    reference = sample.answer if sample.choice is None else listed[sample.choice]
    return JudgeCase("\n".join([sample.question, *listed]), reference, str(record.said))


def rescore_run(
    folder: Path, judge: Judge | None = None, *, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Score every evaluation at or below `folder` again, and write the changed records and the
    `results.json` that counts them.

    A record with a changed verdict is appended to its `episodes.jsonl`, where the last line of a
    key counts. The former verdict stays readable, and a second call writes nothing.

    Returns:
        The figures of each evaluation, by its name in `results.json`.
    Raises:
        RunError: there is no evaluation, or `results.json` is of another format.
    """
    root = results_root(folder)
    evaluations = find_evaluations(folder if root == folder else folder.absolute())
    read_results(root)  # raises for another format before anything is written
    known: dict[Path, Records] = {}
    identity = judge.identity if judge else None
    with FolderLock(root):
        for one in evaluations:
            with FolderLock(one.folder):  # raises while the evaluation is still written
                before = read_records(one.run)
                after = rescore(list(before.values()), judge, progress=progress)
                for (key, was), now in zip(before.items(), after, strict=True):
                    if now != was:
                        log_record(one.run, key, now)
            known[one.folder] = after
        results = update_results(root, known=known, judge=identity, again=True)["results"]
    return {name: results[name] for name in names_below(folder, root)}
