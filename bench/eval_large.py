"""Evaluating a served model on pictures of 7680 x 4320 from disk: CPU seconds per question,
questions a second per core, decodes per picture, and memory.

The server answers at once, and every picture has two questions with one crop each. Ours is two
worker processes with eight questions in play each, and once one process with all of them. Theirs is
the usual way, in which every view and crop decodes the whole picture and is packed at PNG level 6,
beside the requests of a bare loop. At best is one decode per picture, one resize and packing per
view and crop, and the same requests.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lfpc.images
from bench.eval_overhead import (
    BOX,
    LOOK,
    PROTOCOL,
    RULES,
    bare_loop,
    conversation_of,
    cpu_of,
    evaluated,
    policy_of,
    served,
)
from bench.large_picture import large_picture, theirs
from bench.side_by_side import BenchError, peak_memory_mib
from lfpc.episode import AsyncPolicy
from lfpc.evaluation.opened import EpisodeSettings
from lfpc.evaluation.run import Asked, items_of
from lfpc.images import crop_view, global_view, open_picture, png_bytes
from lfpc.playing.driver import Item
from lfpc.records import EpisodeRecord
from lfpc.samples import Sample

FILES = 24
"""Pictures: three times as many as `lfpc.images.PICTURE_BYTES` keeps."""
BUDGET = 1024
CONCURRENCY = 16
PROCESSES = 2


@dataclass(frozen=True)
class Cost:
    """What evaluating `questions` costs, in all processes."""

    questions: int
    cpu_seconds: float
    decodes: int
    peak_mib: float
    """Of the largest process."""


def measure(root: Path, out: Path, *, files: int = FILES) -> dict[str, Any]:
    """Our evaluation of half of the questions and of all, in processes of their own."""
    from bench.limit import picture_seconds  # here: no worker needs torch

    folder = out / "eval_large"
    samples = questions(folder, large_picture(out / "large.jpg"), files)
    with served(root) as url:
        half = cost_of("bench.eval_large", url, folder, files // 2, PROCESSES)
        whole = cost_of("bench.eval_large", url, folder, files, PROCESSES)
        alone = cost_of("bench.eval_large", url, folder, files, 1)
        conversations = [conversation_of(sample, budget=BUDGET) for sample in samples[:2]]
        requests = cpu_of(lambda: bare_loop(conversations, url)) / len(conversations)
    ours = whole.cpu_seconds / whole.questions
    picture = open_picture.__wrapped__(samples[0].image)
    views = [global_view(picture, BUDGET), crop_view(picture, BOX, RULES)]
    once = cpu_of(lambda: picture_seconds({samples[0].image: views}))
    packing = cpu_of(lambda: [png_bytes(view) for view in views])
    usual = cpu_of(lambda: theirs(samples[0].image, [(view.size, view.cut) for view in views]))
    found = {
        "ours": ours,
        "theirs": usual + requests,
        "ratio": (usual + requests) / ours,
        "unit": "CPU s/question",
        "at_best": (once + packing) / 2 + packing / 2 + requests,
        "processes": [asdict(half), asdict(whole)],
        "one_process": asdict(alone),
    }
    print_costs("eval_large", half, whole, alone)
    return found


def print_costs(name: str, half: Cost, whole: Cost, alone: Cost) -> None:
    """Print what two processes took for half of the questions and for all, and one for all."""
    for where, cost in (("two processes", half), ("two processes", whole), ("one process", alone)):
        print(
            f"{name}: {where}, {cost.questions} questions: "
            f"{cost.questions / cost.cpu_seconds:.1f} questions a second per core, "
            f"{2 * cost.decodes / cost.questions:.1f} decodes per picture (1 at best), at most "
            f"{cost.peak_mib:.0f} MiB in a process"
        )


def cost_of(module: str, url: str, folder: Path, files: int, processes: int) -> Cost:
    """What the `main` of a benchmark's module prints, in a process of its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", f"from {module} import main; main()"),
            *(url, str(folder), str(files), str(processes)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"evaluating {files} pictures failed: {done.stderr[-500:]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def evaluating(url: str, folder: Path, files: int, processes: int) -> Cost:
    """Evaluate the questions about `files` pictures."""
    samples = questions(folder, folder.parent / "large.jpg", files)
    counts = folder / "decoded"
    counts.write_bytes(b"")
    setup = partial(counting, url, counts)
    if processes == 1:
        setup(1)
    cpu = cpu_of(
        lambda: evaluated(
            samples,
            url,
            folder / "run",
            budget=BUDGET,
            concurrency=CONCURRENCY,
            processes=processes,
            setup=setup,
        )
    )
    return spent(len(samples), cpu, counts)


def spent(questions: int, cpu: float, counts: Path) -> Cost:
    """The cost of `questions` after `cpu` seconds of this process, and with its children that have
    ended.
    """
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(
        questions,
        cpu + workers.ru_utime + workers.ru_stime,
        counts.stat().st_size,
        max(peak_memory_mib(), workers.ru_maxrss / 1024),
    )


def counting(
    url: str, counts: Path, players: int
) -> tuple[Callable[[Asked], Item[EpisodeRecord]], AsyncPolicy]:
    """The questions and the policy of a process that counts what it decodes."""
    count_decodes(counts)
    settings = EpisodeSettings(protocol=PROTOCOL, budget=BUDGET, look=LOOK)
    return items_of([settings]), policy_of(url, players)


def count_decodes(counts: Path) -> None:
    """Let each picture that this process decodes add a byte to `counts`."""
    upright = lfpc.images.upright_rgb

    def counted(file: Any) -> Any:
        with counts.open("ab") as out:
            out.write(b"1")
        return upright(file)

    lfpc.images.upright_rgb = counted


def questions(folder: Path, picture: Path, files: int) -> Sequence[Sample]:
    """Two questions about each of `files` names of one picture file."""
    folder.mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    for number in range(files):
        file = folder / f"{number}.jpg"
        if not file.exists():
            os.link(picture, file)
        one = Sample(id=f"{number}a", image=file, question="Which colour is it?", answer="red")
        samples += [one, replace(one, id=f"{number}b", question="Which colour has it?")]
    return samples


def main() -> None:
    """Evaluate once and print the cost."""
    url, folder, files, processes = sys.argv[1:]
    print(json.dumps(asdict(evaluating(url, Path(folder), int(files), int(processes)))))
