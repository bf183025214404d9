"""Score an evaluation again from its rows, without asking the model again: by today's rules, and by
a judge if there is one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfpc.answers import check_answer
from lfpc.errors import SampleError
from lfpc.evaluate.judge import Judge, JudgeCase
from lfpc.evaluate.stored import stored_evaluations, write_stored
from lfpc.evaluate.summary import RESULTS_FILE, read_results
from lfpc.metrics.episodes import Row
from lfpc.metrics.scoring import DECIDERS
from lfpc.published.rows import LETTERS
from lfpc.samples import Sample
from lfpc.storage.locks import FolderLock

VERDICT_KEYS = ("correct", "method", "judge", "undecided")
"""Keys of a row that scoring writes."""


def rescore_rows(
    rows: Sequence[Row], judge: Judge | None = None, *, progress: bool = False
) -> list[dict[str, Any]]:
    """Rows with their verdicts decided anew; error rows stay as they are.

    A rule decides first. The judge is asked about readable answers that no rule could match:
    row["method"] is then "judge" and row["judge"] names it, or "undecided" and row["undecided"]
    says why.

    Raises:
        SampleError: a row lacks what scoring needs.
        RunError: the judge's server refuses or is dead.
    """
    ruled = [dict(row) if "error" in row else _by_rule(row) for row in rows]
    open_rows = [row for row in ruled if judge and needs_judge(row)]
    if judge is None or not open_rows:
        return ruled
    name = f"{judge.config.model} (prompt {judge.identity['prompt_version']})"
    for row, judgement in zip(
        open_rows, judge.decide([_case(row) for row in open_rows], progress=progress), strict=True
    ):
        if judgement.correct is None:
            row |= {"correct": False, "method": "undecided", "undecided": judgement.why}
        else:
            row |= {"correct": judgement.correct, "method": "judge", "judge": name}
    return ruled


def needs_judge(row: Row) -> bool:
    """Whether there is an answer that no rule could match: neither an option nor the reference's
    text, and not two numbers.
    """
    return (
        not row.get("correct")
        and row.get("method") in ("unparsed", "text")
        and bool(str(row.get("said") or "").strip())
    )


def _by_rule(row: Row) -> dict[str, Any]:
    try:
        sample = Sample(
            id=row["sample"],
            image=Path(row["image"]),
            question=row["question"],
            answer=row["answer"],
            options=tuple(row["options"]),
        )
        verdict = check_answer(row["said"], sample)
    except (KeyError, TypeError, AttributeError) as error:
        raise SampleError(
            f"a row of sample {row.get('sample', '?')!r} cannot be scored: {error} is "
            f"missing or of the wrong kind"
        ) from error
    kept = {key: value for key, value in row.items() if key not in VERDICT_KEYS}
    return kept | {"correct": verdict.correct, "method": verdict.method}


def _case(row: Row) -> JudgeCase:
    options: Sequence[str] = row["options"]
    listed = [f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False)]
    reference = str(row["answer"])
    if options and reference in LETTERS[: len(options)]:
        reference = listed[LETTERS.index(reference)]
    return JudgeCase("\n".join([row["question"], *listed]), reference, str(row["said"]))


def rescore_run(
    run: Path, judge: Judge | None = None, *, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Score every evaluation below `run` again; write the changed rows and `results.json`.

    A row whose verdict changed is appended to its `episodes.jsonl`, where of several lines with one
    key the last counts: the former verdict stays readable, and nothing is written the second time.
    A task is called by the path of its folder below `run`.

    Returns:
        The figures of each task.
    Raises:
        RunError: there is no evaluation below `run`, or its `results.json` is of another kind (the
            demo's), or another process writes there.
    """
    read_results(
        run / RESULTS_FILE
    )  # so that a file of another kind is refused before anything is written
    stored = stored_evaluations(run)
    lock = FolderLock(run)
    for folder in stored.values():
        before = folder.episodes()
        after = dict(
            zip(before, rescore_rows(list(before.values()), judge, progress=progress), strict=True)
        )
        for key, row in after.items():
            if any(row.get(name) != before[key].get(name) for name in VERDICT_KEYS):
                folder.log_episode(key, row)
    figures = write_stored(
        run, {task: {"judge": judge.identity if judge else None} for task in stored}
    )
    lock.release()
    return figures


def figure_lines(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line per task for a person: accuracy with its interval, and who decided how much."""
    lines: list[str] = []
    for task, found in figures.items():
        shares = ", ".join(
            f"{name} {found[f'decided/{name}']:.1%}"
            for name in DECIDERS
            if found[f"decided/{name}"]
        )
        interval = f"[{found['acc_low']:.3f}, {found['acc_high']:.3f}]"
        if found["n"]:
            lines.append(
                f"{task}: accuracy {found['acc']:.3f} {interval} of {found['n']} rows; "
                f"decided by {shares}"
            )
            if "avg@k" in found:
                sure = f"[{found['avg@k_low']:.3f}, {found['avg@k_high']:.3f}]"
                lines.append(
                    f"{task}: avg@{found['k']} {found['avg@k']:.3f} {sure}, any "
                    f"{found['any@k']:.3f}, all {found['all@k']:.3f}"
                )
        else:
            lines.append(f"{task}: no rows")
    return lines
