"""Score an evaluation again from its records, without asking the model again: by today's rules, and
by a judge if there is one.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lfpc.answers import check_answer
from lfpc.evaluation.judge import Judge, JudgeCase
from lfpc.evaluation.stored import find_evaluations, read_results, update_results
from lfpc.metrics.summary import Records
from lfpc.published.options import LETTERS
from lfpc.records import EpisodeRecord, log_record, read_records
from lfpc.storage.locks import FolderLock


def rescore(
    records: Records, judge: Judge | None = None, *, progress: bool = False
) -> list[EpisodeRecord]:
    """Records with their verdicts decided anew; failed ones stay as they are.

    A rule decides first. The judge is asked about readable answers that no rule could match:
    `method` is then "judge" and `judge` names it, or "undecided" and `undecided` says why.

    Raises:
        RunError: the judge's server refuses or is dead.
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
    """Whether there is an answer that no rule could match: neither an option nor the reference's
    text, and not two numbers.
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
    reference = sample.answer
    if options and reference in LETTERS[: len(options)]:
        reference = listed[LETTERS.index(reference)]
    return JudgeCase("\n".join([sample.question, *listed]), reference, str(record.said))


def rescore_run(
    root: Path, judge: Judge | None = None, *, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Score every evaluation at or below `root` again; write the changed records and
    `results.json`.

    A record whose verdict changed is appended to its `episodes.jsonl`, where of several lines with
    one key the last counts: the former verdict stays readable, and nothing is written the second
    time.

    Returns:
        The figures of each evaluation, by its name in `results.json`.
    Raises:
        RunError: there is no evaluation, or `results.json` is of another format.
    """
    evaluations = find_evaluations(root)
    read_results(root)  # a file of another format is refused before anything is written
    known: dict[Path, Records] = {}
    identity = judge.identity if judge else None
    with FolderLock(root):
        for one in evaluations:
            before = read_records(one.run)
            after = rescore(list(before.values()), judge, progress=progress)
            for (key, was), now in zip(before.items(), after, strict=True):
                if now != was:
                    log_record(one.run, key, now)
            known[one.folder] = after
        return update_results(root, known=known, judge=identity, again=True)["results"]
