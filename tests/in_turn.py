"""The jobs of a demo or a study in this process, in place of `lfpc.playing.jobs.run_jobs`."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from lfpc.playing.jobs import Job


def in_turn(jobs: Sequence[Job], processes: int, tick: Callable[[], None]) -> dict[Hashable, Any]:
    """Results of the jobs by name: no process that would load torch again."""
    waiting, results = list(jobs), {}
    while waiting:
        job = next(one for one in waiting if one.after is None or one.after in results)
        waiting.remove(job)
        results[job.name] = job.call(*job.arguments)
        tick()
    return results
