"""Two processes that take turns, step by step: what else the machine does meets both alike.

    parent                child
      "step"        ->     one training step
                    <-     {"seconds": ..., "tool_rate": ...}

The child's own printing goes to a log file.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

Facts = dict[str, float]


class BenchError(Exception):
    """A benchmark that cannot be run, or whose sides did different work."""


class Worker:
    """A side's process, as the parent sees it."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **env},
                cwd=cwd,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
            )

    def answer(self) -> Facts:
        """The next line of the child."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise BenchError(f"{self.name} ended early; the end of {self.log}:\n" + self._tail())
        return json.loads(line)

    def step(self) -> Facts:
        """Have one step done."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("step\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `answer` says why
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _tail(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])


class Channel:
    """The child's end."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def tell(self, **facts: float) -> None:
        """Answer the parent; the peak memory so far, in MiB, is added."""
        facts["peak_mib"] = peak_memory_mib()
        print(json.dumps(facts), file=self.out, flush=True)

    def wait(self) -> "Clock":
        """Wait until the parent wants a step; a clock that starts then. Ends the process when the
        parent is gone.
        """
        if not sys.stdin.readline():
            os._exit(0)
        return Clock()


class Clock:
    """Started when made."""

    def __init__(self) -> None:
        self.wall = time.perf_counter()
        self.cpu = time.process_time()

    def read(self) -> Facts:
        """Seconds since the start, on the wall and of this process's CPU time (which other
        processes hardly change).
        """
        return {
            "seconds": time.perf_counter() - self.wall,
            "cpu_seconds": time.process_time() - self.cpu,
        }


def peak_memory_mib() -> float:
    """The most memory this process had resident. Not ru_maxrss where avoidable: on Linux a child's
    starts at that of its parent.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return float(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def take_turns(
    workers: Sequence[Worker], *, warmup: int, steps: int, title: str
) -> list[list[Facts]]:
    """Per worker the facts of its timed steps, made in turns A B A B after `warmup` rounds;
    `loaded_mib` is the peak before the first.
    """
    try:
        loaded = [worker.answer()["peak_mib"] for worker in workers]
        rounds: list[list[Facts]] = []
        bar = tqdm(range(warmup + steps), desc=title, unit="round", disable=None)
        if bar.disable:
            print(f"{title}: {warmup + steps} rounds", flush=True)
        for _ in bar:
            rounds.append(
                [
                    worker.step() | {"loaded_mib": before}
                    for worker, before in zip(workers, loaded, strict=True)
                ]
            )
    finally:
        for worker in workers:
            worker.close()
    return [[facts[number] for facts in rounds[warmup:]] for number in range(len(workers))]


def environment(threads: int, root: Path) -> dict[str, str]:
    """Environment variables of either side."""
    keys = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    offline: dict[str, Any] = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return {**dict.fromkeys(keys, str(threads)), **offline, "PYTHONPATH": f"{root / 'src'}"}
