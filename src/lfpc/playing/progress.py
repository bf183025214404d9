"""How far a long piece of work is: one bar on a terminal, a line now and then elsewhere."""

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
    """A function that is told how many more are done.

    Args:
        total: how many there are; None: not known.
        already: how many were done before.
        label: what the work is called.
        unit: what is counted, in the singular.
        shown: False: nothing is written.
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
