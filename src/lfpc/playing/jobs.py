"""Jobs in parallel processes with dependencies, and one progress bar over the lines that they
write.
"""

import os
import pickle
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lfpc.errors import RunError
from lfpc.policies.spawning import be_worker, model_context, sending, without_main

_LINE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """A call in another process: `call(*arguments)`, after the job named `after`. All parts must
    pickle.
    """

    name: Hashable
    call: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    after: Hashable = None


def run_jobs(jobs: Sequence[Job], processes: int, tick: Callable[[], None]) -> dict[Hashable, Any]:
    """Results of the jobs by name. Jobs start in the order of the list.

    `tick` is called about once a second. The first exception of a job ends all jobs and is raised
    here. However this process ends, its workers end with it.

    Raises:
        RunError: a worker was killed, such as by a system without memory.
    """
    results: dict[Hashable, Any] = {}
    waiting = list(jobs)
    import torch

    context = model_context(cuda=torch.cuda.is_available())
    with ProcessPoolExecutor(
        processes, context, initializer=_be_worker, initargs=(processes,)
    ) as pool:
        running: dict[Future[Any], Job] = {}
        try:
            while waiting or running:
                ready = [job for job in waiting if job.after is None or job.after in results]
                for job in ready[: processes - len(running)]:
                    waiting.remove(job)
                    with without_main():
                        running[pool.submit(job.call, *job.arguments)] = job
                if not running:
                    raise ValueError(
                        f"jobs wait for unknown jobs: {[job.after for job in waiting]}"
                    )
                for future in wait(running, timeout=1, return_when=FIRST_COMPLETED).done:
                    results[running.pop(future).name] = future.result()
                tick()
        except BrokenProcessPool as error:
            _end(pool)
            with sending("the jobs", "run them one by one"):
                pickle.dumps(list(running.values()))
            raise RunError(
                "a worker process was killed, perhaps because the machine ran out of memory; "
                "the same command resumes, and fewer --processes need less memory"
            ) from error
        except BaseException:
            _end(pool)
            raise
    return results


def _end(pool: ProcessPoolExecutor) -> None:
    """Terminate the workers of `pool`, and no other child of this process. From Python 3.14 on this
    is `pool.terminate_workers`; before, only a private attribute lists them.
    """
    workers = list(pool._processes.values())  # the pool forgets them as it shuts down
    for process in workers:
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)  # its thread waits for them: only one may


def _be_worker(processes: int) -> None:
    """Set up a worker: its share of the cores, a silent end on Ctrl-C, and an end with its
    parent.
    """
    import torch

    be_worker()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


@contextmanager
def bar_over_files(
    expected: Mapping[Path, tuple[int, float]], label: str, *, shown: bool
) -> Iterator[Callable[[], None]]:
    """A function that updates the bar: the weighted share of the expected lines.

    Args:
        expected: file -> (expected number of lines, weight of a line).
        label: label of the bar.
        shown: whether to show a bar, or lines without a terminal.
    """
    total = sum(count * weight for count, weight in expected.values())
    began = said = time.monotonic()
    first: float | None = None  # an interrupted job has lines already
    terminal = sys.stderr.isatty()
    with tqdm(
        total=100,
        desc=label,
        bar_format="{l_bar}{bar}| {elapsed}<{remaining}",
        disable=not (shown and terminal),
    ) as bar:

        def update() -> None:
            nonlocal said, first
            done = sum(
                min(_lines(file), count) * weight for file, (count, weight) in expected.items()
            )
            first = done if first is None else first
            bar.update(100 * done / total - bar.n)
            if shown and not terminal and time.monotonic() - said > _LINE_EVERY_S:
                said = time.monotonic()
                left = (total - done) * (said - began) / (done - first) if done > first else 0.0
                time_left = f", {tqdm.format_interval(left)} left" if left >= 1 else ""
                tqdm.write(f"{label}: {done / total:.0%}{time_left}", file=sys.stderr)

        yield update


def _lines(file: Path) -> int:
    try:
        with file.open("rb") as lines:
            return sum(part.count(b"\n") for part in iter(lambda: lines.read(1 << 20), b""))
    except FileNotFoundError:
        return 0
