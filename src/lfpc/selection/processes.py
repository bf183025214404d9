"""The questions of a selection, asked by worker processes.

Each process searches whole samples, so that it decodes an original once for all levels, and hands
over the answers. The selection then finds them stored.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from lfpc.episode import AsyncPolicy
from lfpc.errors import LfpcError
from lfpc.playing.driver import Failure, Item, Played
from lfpc.playing.processes import play_in_processes, processes_for
from lfpc.playing.progress import progress_bar
from lfpc.playing.threads import THREADS
from lfpc.policies.backends import Server
from lfpc.policies.config import PolicyConfig
from lfpc.policies.loading import served_policy
from lfpc.samples import Sample
from lfpc.selection.asking import Asking, Row
from lfpc.selection.config import SelectConfig
from lfpc.storage.journal import read_lines

T = TypeVar("T")
Rows = list[tuple[str, Row]]
"""Keys and answers."""


def ask_in_processes(
    samples: Sequence[Sample],
    asking: Asking,
    model: PolicyConfig,
    server: Server,
    config: SelectConfig,
    stored: Path,
    failed: Callable[[Sample, Failure, int], None],
    *,
    concurrency: int,
    processes: int | None,
    progress: bool,
) -> None:
    """Store the answers that a search without a judge needs, where worker processes are worth it.

    Args:
        samples: the samples.
        asking: takes the answers.
        model: the model on `server`, its protocol and sampling.
        config: ladder and options.
        stored: journal of the stored answers.
        failed: called with a failed sample and the number of those played; it may raise.
        concurrency: samples in play, of all processes.
        processes: number of processes; None: as many as the pictures are worth.
        progress: whether to show a progress bar.
    Raises:
        RunError: a process was killed.
    """
    with ThreadPoolExecutor(THREADS) as threads:
        lacking = threads.map(partial(_lacks_answers, asking), samples)
        todo = [sample for sample, lacks in zip(samples, lacking, strict=True) if lacks]
    workers = processes_for(todo, concurrency) if processes is None else processes
    if workers == 1:
        return
    done = 0

    def record(some: Sequence[Played[Sample, Rows]]) -> None:
        nonlocal done
        done += len(some)
        for sample, result, _ in some:
            if isinstance(result, Failure):
                failed(sample, result, done)
            else:
                for key, row in result:
                    asking.keep(key, row)
        advance(len(some))

    already = len(samples) - len(todo)
    with progress_bar(len(samples), already, "ask", unit="sample", shown=progress) as advance:
        play_in_processes(
            todo,
            partial(_elsewhere, model, server, config, stored),
            record,
            processes=workers,
            concurrency=concurrency,
            picture=lambda sample: sample.image,
        )


def _lacks_answers(asking: Asking, sample: Sample) -> bool:
    try:
        next(asking.search(sample))
    except (StopIteration, LfpcError):
        return False
    return True


def _elsewhere(
    model: PolicyConfig, server: Server, config: SelectConfig, stored: Path, players: int
) -> tuple[Callable[[Sample], Item[Rows]], AsyncPolicy]:
    """The items, whose results are new answers, and the policy of a process that searches `players`
    samples at a time.
    """
    made: deque[tuple[str, Row]] = deque()
    asking = Asking(
        read_lines(stored), model.chat, config, lambda key, row: made.append((key, row))
    )

    def item(sample: Sample) -> Item[Rows]:
        yield from asking.search(sample)
        return list(_taken(made))  # with those of others, which may fail at their next level

    asked = replace(server, concurrency=players * config.votes)
    return item, served_policy(model, asked, tools=False)


def _taken(made: deque[T]) -> Iterator[T]:
    """What `made` holds, each taken by one thread."""
    with suppress(IndexError):
        while True:
            yield made.popleft()
