"""Progress of long work: one bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

LINE_EVERY_S = 30.0


@contextmanager
def progress_bar(
    total: int | None, already: int, label: str, *, unit: str, shown: bool
) -> Iterator[Callable[[int], None]]:
    """A function that advances the progress by a number of finished items.

    Args:
        total: number of items; None: unknown.
        already: number of items finished before.
        label: label of the bar.
        unit: name of an item, in the singular.
        shown: whether to show anything.
    """
    terminal = sys.stderr.isatty()
    bar = tqdm(
        total=total, initial=already, desc=label, unit=unit, disable=not (shown and terminal)
    )
    count = already
    began = time.monotonic()
    said = began

    def advance(more: int) -> None:
        nonlocal count, said
        count += more
        bar.update(more)
        now = time.monotonic()
        if shown and not terminal and (count == total or now - said > LINE_EVERY_S):
            said = now
            left = (
                (total - count) * (now - began) / (count - already)
                if total and count > already
                else 0.0
            )
            time_left = f", {tqdm.format_interval(left)} left" if left >= 1 else ""
            tqdm.write(
                f"{label}: {count:,}{f' of {total:,}' if total else ''} {unit}s{time_left}",
                file=sys.stderr,
            )

    with bar:
        yield advance
