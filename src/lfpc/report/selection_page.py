"""Results of resolution selection as lines for a terminal and as a page: chosen levels, accuracy by
level.
"""

from pathlib import Path

from lfpc.report import figures
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
    curve = figures.level_figure(
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
            f"{found.wrong:,} were answered wrongly at the original."
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
