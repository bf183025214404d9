"""Results of resolution selection as lines for a terminal and as a page: chosen levels, accuracy by
level.
"""

from pathlib import Path

from lfpc.evaluation.terminal import TRUNCATION
from lfpc.report.curves import level_figure
from lfpc.report.data_page import TextTable, write_data_page
from lfpc.selection.run import Level, Selection


def selection_lines(found: Selection) -> list[str]:
    """Lines for a terminal: a bar per level, then the counts."""
    total = max(1, len(found.samples) + found.dropped)
    lines = [
        f"{level_name(level):>8}: {level.changed:>6} samples changed their answer "
        f"{'#' * round(50 * level.changed / total)}"
        for level in found.ladder[1:]
    ]
    failed = found.failed or {}
    lines += [f"sample {name!r} is left out: {why}" for name, why in list(failed.items())[:5]]
    return [
        *lines,
        f"never changed: {found.never}; wrong at the original: {found.wrong}; dropped: "
        f"{found.dropped}; failed: {len(failed)}",
        *warning_lines(found),
    ]


def warning_lines(found: Selection) -> list[str]:
    """Why the budgets may not reflect what the questions need, and what to do."""
    cut = (
        [f"warning: {found.truncated} samples have {TRUNCATION}, and their answers may be cut"]
        if found.truncated
        else []
    )
    return cut + unchanged_lines(found)


def unchanged_lines(found: Selection) -> list[str]:
    """A warning if no answer changed at any level, and what to do; else nothing."""
    if found.levels or not found.never:
        return []
    cause = (
        f"{found.one_size} of {found.never} pictures have the same size at all levels, so the "
        f"model saw the same pixels"
        if found.one_size
        else "the model answers all questions alike at the lowest level"
    )
    return [
        f"warning: no answer changed, so the budgets do not reflect what the questions need: "
        f"{cause}. Choose levels below the visual tokens of the pictures with --ladder, or shares "
        f"of each picture with --ratios 1 0.25 0.0625"
    ]


def level_name(level: Level) -> str:
    """Name of a level: its budget, or "x" and its ratio."""
    return f"{level.name:g}" if level.name > 1 else f"x {level.name:.3g}"


def write_selection_page(out: Path, found: Selection) -> Path:
    """Write the page into `out`; returns the path of `index.html`.

    Raises:
        RunError: the folder cannot be written.
    """
    chosen = {level_name(level): level.changed for level in found.ladder[1:]} | {
        "never": found.never
    }
    here = [(i, level.right / level.asked) for i, level in enumerate(found.ladder) if level.asked]
    before = [
        (i, level.right_before / level.asked) for i, level in enumerate(found.ladder) if level.asked
    ]
    names = [level_name(level) for level in found.ladder]
    curve = level_figure(
        "Accuracy by level",
        {"at this level": here, "the same samples at the original": before},
        names,
    )
    return write_data_page(
        out,
        title="Resolution selection",
        facts=[
            f"{len(found.samples) + found.dropped:,} samples: {len(found.samples):,} kept, "
            f"{found.dropped:,} dropped. {len(found.failed or {}):,} others failed. "
            f"{found.wrong:,} were answered wrongly at the original.",
            *warning_lines(found),
        ],
        bars={"Level at which the answer first changed": chosen},
        curves=[curve],
        tables=[_table(found)],
    )


def _table(found: Selection) -> TextTable:
    note = (
        "A sample whose answer has changed is not asked at lower levels, except with "
        "--every-level: the accuracy of a level covers the samples asked there."
    )
    rows = [_row(level) for level in found.ladder]
    return TextTable(
        "Levels",
        ("Level", "Samples asked", "Right", "Right at the original", "First changed here"),
        tuple(rows),
        note,
    )


def _row(level: Level) -> tuple[str, ...]:
    def share(count: int) -> str:
        return f"{count / level.asked:.1%}" if level.asked else "none"

    return (
        level_name(level),
        f"{level.asked:,}",
        share(level.right),
        share(level.right_before),
        f"{level.changed:,}",
    )
