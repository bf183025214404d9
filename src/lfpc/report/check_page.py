"""Results of a check and of a mixture as pages with samples to look at."""

from itertools import islice
from pathlib import Path

from lfpc.data.check import Checked, CheckSummary
from lfpc.data.mix import Mixed
from lfpc.published.rejections import RejectReason
from lfpc.report.data_page import SampleCard, TextTable, write_data_page
from lfpc.samples import iter_samples

MOST_ROWS = 2_000
"""Maximum number of problems in the table."""


def write_check_page(out: Path, report: CheckSummary, folder: Path) -> Path:
    """Write the page into `out`; returns the path of `index.html`.

    Raises:
        RunError: the folder cannot be written.
    """
    return write_data_page(
        out,
        title=f"Check of {folder}",
        facts=[
            f"{report.rows:,} rows: {report.unusable:,} unusable, {report.warned:,} with warnings.",
            "Dashed lines stand around the truth boxes of a sample, at a small distance.",
        ],
        bars={
            "Samples by source": dict(report.sources.most_common(20)),
            "Rows by problem": dict(report.kinds.most_common()),
        },
        tables=[_problems(report)],
        groups={
            "Worst": [_shown(checked) for checked in report.worst],
            "Drawn at random": [_shown(checked) for checked in report.drawn],
        },
    )


def _problems(report: CheckSummary) -> TextTable:
    """Every problem, unusable rows first."""
    found = sorted(report.bad, key=lambda row: (not row[2].fatal, row[0]))
    left = len(found) - MOST_ROWS
    return TextTable(
        "Rows with problems",
        ("Row", "Sample", "Usable", "Problem"),
        tuple(
            (str(row), name or "none", "no" if problem.fatal else "yes", problem.text)
            for row, name, problem in found[:MOST_ROWS]
        ),
        f"{left:,} more are printed by the command." if left > 0 else "",
        words=True,
    )


def _shown(checked: Checked) -> SampleCard:
    assert checked.sample is not None
    return SampleCard(checked.sample, tuple(problem.text for problem in checked.problems))


def write_mix_page(out: Path, mixed: Mixed, shown: int = 12) -> Path:
    """Write the page of a mixture into `out`: its parts, why samples were left out, the first
    leaks, and `shown` samples.

    Raises:
        RunError: the folder cannot be written.
    """
    reasons = list(mixed.left_out)
    rows = [
        (
            name,
            f"{counts['read']:,}",
            f"{counts['samples']:,}",
            *(f"{counts.get(reason, 0):,}" for reason in reasons),
        )
        for name, counts in mixed.parts.items()
    ]
    step = max(1, mixed.samples // shown)
    samples = islice(iter_samples(mixed.folder), 0, None, step)
    return write_data_page(
        out,
        title="Mixture",
        facts=[
            f"{mixed.samples:,} samples; {mixed.left_out.total():,} were left out, "
            f"{mixed.left_out[RejectReason.LEAK.value]:,} of them for a benchmark's picture."
        ],
        bars={"Samples by part": {name: counts["samples"] for name, counts in mixed.parts.items()}},
        tables=[
            TextTable(
                "Parts",
                ("Part", "Read", "Samples", *(reason.capitalize() for reason in reasons)),
                tuple(rows),
            )
        ],
        groups={
            "Left out: pictures of a benchmark": [
                SampleCard(each.sample, (each.detail,)) for each in mixed.leaks
            ],
            "Samples": [SampleCard(sample) for sample in islice(samples, shown)],
        },
    )
