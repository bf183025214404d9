"""Samples played in several processes, for a served model.

Each process opens, cuts and encodes the pictures of its samples, asks the server, and makes their
results. Between the processes go numbers of samples and results, no pixels. What is called a sample
here may be one with anything else, as in `lfpc.playing.driver`.
"""

import asyncio
import multiprocessing
import os
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lfpc.episode import AsyncPolicy
from lfpc.errors import ConfigError, LfpcError, PictureError, RunError
from lfpc.images import PICTURE_BYTES, upright_size
from lfpc.playing.driver import Item, OnPlayed, Played, play_concurrently
from lfpc.policies.backends import Backend, Server
from lfpc.policies.spawning import be_worker, sending
from lfpc.samples import Sample

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

S = TypeVar("S")
R = TypeVar("R")
Setup = Callable[[int], tuple[Callable[[S], Item[R]], AsyncPolicy]]
"""Makes the items and the policy of a process that plays so many samples at a time. It must
pickle, as must the samples and the results of their items, without a name of `__main__`."""
_THREADS = 2
"""Threads of a process that work on pictures: each may hold a large one in decoding."""
PIXELS_PER_PROCESS = 2_000_000_000
"""Pixels of originals that are worth a process, which takes a second to start: those of 60
pictures of 7680 x 4320."""
PROCESS_BYTES = 2 * PICTURE_BYTES
"""Memory of a process: cached originals, others in decoding, views and requests."""


def check_processes(processes: int | None, backend: Backend) -> None:
    """Check a number of processes that ask `backend`; None: not yet known.

    Raises:
        ConfigError: it is below 1, or above 1 for a model in this process.
    """
    if processes is None or processes == 1:
        return
    if processes < 1:
        raise ConfigError(f"`processes` must be at least 1, got {processes}")
    if not isinstance(backend, Server):
        raise ConfigError(
            f"`processes` is for served models (`base_url`), which several processes can ask; got "
            f"{processes} for a model in this process"
        )


def processes_for(samples: Sequence[Sample], concurrency: int) -> int:
    """Number of processes that the pictures of `samples` are worth, by the size of some of them,
    but no more than cores, pairs of questions in play, or what half of the memory holds.
    """
    some = samples[:: len(samples) // 16 + 1]
    pixels = 0.0
    for sample in some:
        with suppress(PictureError):
            width, height = upright_size(sample.image)
            pixels += width * height * len(samples) / len(some)
    most = min(os.cpu_count() or 1, concurrency // 2, _memory() // 2 // PROCESS_BYTES)
    return max(1, min(most, int(pixels / PIXELS_PER_PROCESS)))


def _memory() -> int:
    """Bytes of the machine's memory, or of its control group's if that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such group, or "max"
            limits.append(int(Path(file).read_text()))
    return min(limits)


def play_in_processes(
    samples: Sequence[S],
    setup: Setup[S, R],
    record: OnPlayed[S, R],
    *,
    processes: int,
    concurrency: int,
    picture: Callable[[S], Path],
    one_by_one: Callable[[S], Hashable] = id,
) -> None:
    """Play every sample's item, as `play_samples` does with an AsyncPolicy, in several processes.

    Samples with one picture go to one process, which decodes it once. However this process ends,
    the others end with it.

    Args:
        samples: the samples, started about in this order.
        setup: called in each process.
        record: called here with a finished sample at once.
        processes: number of processes; fewer if `concurrency` or the samples are.
        concurrency: samples in play, of all processes.
        picture: the picture of a sample.
        one_by_one: key of a sample; see `play_samples`.
    Raises:
        ConfigError: the samples do not pickle.
        RunError: a process was killed, such as by a system without memory.
    """
    numbers = groupby(range(len(samples)), lambda number: one_by_one(samples[number]))
    groups = [list(some) for _, some in numbers]
    last = {group[-1] for group in groups}
    concurrency = min(concurrency, len(groups))
    processes = min(processes, concurrency)
    todo = _Piles(groups, [picture(samples[group[0]]) for group in groups])
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for n in range(processes):
            players = (concurrency - n - 1) // processes + 1
            here, process = _started(samples, setup, players)
            workers[here] = process
            for _ in range(players + 1):  # one more, so that no player waits for its next group
                _send(here, todo.next(here))
        while workers:
            for here in wait(list(workers)):
                assert isinstance(here, Connection)
                message = _received(here)
                if isinstance(message, Exception):
                    raise message
                if message is None:
                    workers.pop(here).join()
                    here.close()
                    continue
                number, result, seconds = message
                if number in last:
                    _send(here, todo.next(here))
                record([(samples[number], result, seconds)])
    finally:
        for here, process in workers.items():
            process.terminate()
            process.join()
            here.close()


_Group = Sequence[int]
"""Numbers of samples that are played one after another."""


class _Piles:
    """Groups to be played, in piles of one picture each."""

    def __init__(self, groups: Sequence[_Group], pictures: Sequence[Path]) -> None:
        piles: dict[Path, deque[_Group]] = {}
        for group, picture in zip(groups, pictures, strict=True):
            piles.setdefault(picture, deque()).append(group)
        self._fresh = deque(piles.values())
        self._begun: dict[Connection, deque[_Group]] = {}

    def next(self, worker: Connection) -> _Group | None:
        """The next group for `worker`: from its pile, else from a pile that nobody has begun, else
        from the largest; None: all are given.
        """
        pile = self._begun.get(worker)
        if not pile and self._fresh:
            pile = self._begun[worker] = self._fresh.popleft()
        if not pile:
            pile = max(self._begun.values(), key=len, default=None)
        return pile.popleft() if pile else None


def _started(
    samples: Sequence[S], setup: Setup[S, R], players: int
) -> "tuple[Connection, SpawnProcess]":
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_work, args=(there, samples, setup, players), daemon=True)
    with sending("the samples", "set `processes` to 1"):
        process.start()
    there.close()  # so that the end of the process is the end of the pipe
    return here, process


def _send(there: Connection, group: _Group | None) -> None:
    with suppress(OSError):  # it has ended, which `_received` will see
        there.send(group)


def _received(there: Connection) -> Any:
    """(number, result, seconds) of a sample, an exception that ends the run, or None at the end.

    Raises:
        RunError: the process was killed.
    """
    try:
        return there.recv()
    except (EOFError, OSError):
        raise RunError(
            "a worker process was killed, perhaps because the machine ran out of memory; the same "
            "command resumes, and fewer `processes` need less memory"
        ) from None


def _work(there: Connection, samples: Sequence[S], setup: Setup[S, R], players: int) -> None:
    """Play the groups of samples whose numbers come from `there`, until None does for each
    player.
    """
    be_worker()

    def send(played: Sequence[Played[int, R]]) -> None:
        for one in played:
            there.send(one)

    try:
        item, policy = setup(players)
        asyncio.run(
            _play(
                iter(there.recv, None),
                lambda number: item(samples[number]),
                policy,
                send,
                players,
            )
        )
    except LfpcError as error:
        there.send(error)
    except Exception as error:
        there.send(RuntimeError("".join(traceback.format_exception(error))))
    else:
        there.send(None)


async def _play(
    groups: Iterator[_Group],
    item: Callable[[int], Item[R]],
    policy: AsyncPolicy,
    record: OnPlayed[int, R],
    players: int,
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    await play_concurrently(groups, item, policy, record, players)
