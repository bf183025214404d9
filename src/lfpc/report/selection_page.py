"""Results of resolution selection as lines for a terminal and as a page: chosen levels, accuracy by
level.
"""

from pathlib import Path

from lfpc.evaluation.terminal import TRUNCATION
from lfpc.report.curves import level_figure
from lfpc.report.data_page import TextTable, write_data_page
from lfpc.report.pages import typed
from lfpc.selection.run import Level, Selection


def selection_lines(found: Selection) -> list[str]:
    """Lines for a terminal: a bar per level, then the counts."""
    total = max(1, len(found.samples) + found.dropped)
    lines = [
        f"{level_name(level):>8}: {level.changed:>6} samples changed their answer, "
        f"{level.changed_right:>6} of them a right one {'#' * round(50 * level.changed / total)}"
        for level in found.ladder[1:]
    ]
    failed = found.failed or {}
    lines += [f"sample {name!r} is left out: {why}" for name, why in list(failed.items())[:5]]
    wrong = f"{found.wrong} ({100 * found.wrong / total:.0f} %)"
    return [
        *lines,
        f"never changed: {found.never}; wrong at the original: {wrong}; dropped: "
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
    names = [_tokens(level) for level in found.ladder]
    asked = max((level.asked for level in found.ladder), default=0)
    changed = [level.changed for level in found.ladder]
    chosen = dict(zip(names[1:], changed[1:], strict=True)) | {"never": found.never}
    accuracy = [(i, level.right_all / asked) for i, level in enumerate(found.ladder) if asked]
    curve = level_figure("Accuracy of all samples by visual tokens", {"accuracy": accuracy}, names)
    return write_data_page(
        out,
        title="Resolution selection",
        facts=[
            f"{len(found.samples) + found.dropped:,} samples: {len(found.samples):,} kept, "
            f"{found.dropped:,} dropped. {len(found.failed or {}):,} others failed. "
            f"{found.wrong:,} were answered wrongly at the original.",
        ],
        warnings=[typed(line) for line in warning_lines(found)],
        bars={"Level at which the answer first changed, in visual tokens": chosen},
        curves=[curve],
        tables=[_table(found)],
    )


def _tokens(level: Level) -> str:
    """A level in visual tokens: its budget, or the median of its pictures behind a ratio."""
    if level.name > 1 or level.tokens is None:
        return level_name(level)
    return f"{level.tokens:,.0f} ({level_name(level)})"


def _table(found: Selection) -> TextTable:
    note = (
        "A sample whose answer has changed is not asked at lower levels, except with "
        "--every-level; there the accuracy of all samples counts its last answer. The last "
        "columns are about the samples asked at a level."
    )
    total = max((level.asked for level in found.ladder), default=0)
    rows = [_row(level, total) for level in found.ladder]
    return TextTable(
        "Levels",
        (
            "Level",
            "Visual tokens, median",
            "First changed here",
            "Of these, right at the original",
            "Right, of all",
            "Samples asked",
            "Right",
            "Right at the original",
        ),
        tuple(rows),
        note,
    )


def _row(level: Level, total: int) -> tuple[str, ...]:
    def share(count: int, of: int) -> str:
        return f"{100 * count / of:.1f} %" if of else "none"

    return (
        level_name(level),
        "none" if level.tokens is None else f"{level.tokens:,.0f}",
        f"{level.changed:,}",
        share(level.changed_right, level.changed),
        share(level.right_all, total),
        f"{level.asked:,}",
        share(level.right, level.asked),
        share(level.right_before, level.asked),
    )
