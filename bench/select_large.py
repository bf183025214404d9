"""Resolution selection by a served model on pictures of 7680 x 4320 from disk: CPU seconds per
question, decodes per picture, and memory.

The server answers at once, and the same at every level, so all four levels are asked. Every picture
has two questions. Ours is two worker processes with eight questions in play each, and once one
process with all of them. Theirs is the usual way, in which every level decodes the whole picture
and is packed at PNG level 6, beside the requests of a bare loop. At best is one decode per picture,
one resize and packing per picture and level, and the same requests.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

from bench.eval_large import (
    CONCURRENCY,
    PROCESSES,
    Cost,
    cost_of,
    count_decodes,
    print_costs,
    questions,
    spent,
)
from bench.eval_overhead import PROTOCOL, bare_loop, cpu_of, policy_of, served
from bench.large_picture import large_picture, theirs
from bench.side_by_side import BenchError
from lfpc.dialogue import Context
from lfpc.episode import AsyncPolicy
from lfpc.images import global_view, open_picture, png_bytes
from lfpc.playing.driver import Item
from lfpc.policies.chat_api import PictureUrls, chat_messages
from lfpc.samples import Sample
from lfpc.selection import processes as asked
from lfpc.selection.config import SelectConfig
from lfpc.selection.run import select

FILES = 12
"""Pictures: more than `lfpc.images.PICTURE_BYTES` keeps."""
CONFIG = SelectConfig(model="scripted", protocol=PROTOCOL.name)


def measure(root: Path, out: Path, *, files: int = FILES) -> dict[str, Any]:
    """Our selection of half of the questions and of all, in processes of their own."""
    from bench.limit import picture_seconds  # here: no worker needs torch

    folder = out / "select_large"
    samples = questions(folder, large_picture(out / "large.jpg"), files)
    picture = open_picture.__wrapped__(samples[0].image)
    views = [global_view(picture, budget) for budget in CONFIG.ladder]
    with served(root, ["<answer>red</answer>"]) as url:
        half = cost_of("bench.select_large", url, folder, files // 2, PROCESSES)
        whole = cost_of("bench.select_large", url, folder, files, PROCESSES)
        alone = cost_of("bench.select_large", url, folder, files, 1)
        urls = PictureUrls()
        contexts = [Context(samples[0].question, (), view, ()) for view in views]
        messages = [PROTOCOL.messages(context, tools=False) for context in contexts]
        conversation = [chat_messages(some, urls) for some in messages]
        requests = cpu_of(lambda: bare_loop([conversation], url))
    ours = whole.cpu_seconds / whole.questions
    once = cpu_of(lambda: picture_seconds({samples[0].image: views}))
    packing = cpu_of(lambda: [png_bytes(view) for view in views])
    usual = cpu_of(lambda: theirs(samples[0].image, [(view.size, None) for view in views]))
    print_costs("select_large", half, whole, alone)
    return {
        "ours": ours,
        "theirs": usual + requests,
        "ratio": (usual + requests) / ours,
        "unit": "CPU s/question",
        "at_best": (once + packing) / 2 + requests,
        "processes": [asdict(half), asdict(whole)],
        "one_process": asdict(alone),
    }


def selecting(url: str, folder: Path, files: int, processes: int) -> Cost:
    """Choose the budgets of the questions about `files` pictures.

    Raises:
        BenchError: a question was not asked at every level.
    """
    samples = [
        replace(sample, question=f"Which colour is {sample.id}?")  # equal ones are asked once
        for sample in questions(folder, folder.parent / "large.jpg", files)
    ]
    counts = folder / "decoded"
    counts.write_bytes(b"")
    vars(sys.modules[asked.__name__])["_elsewhere"] = partial(counting, counts)
    if processes == 1:
        count_decodes(counts)
    rmtree(folder / "run", ignore_errors=True)

    def work() -> None:
        found = select(
            samples,
            policy_of(url, CONCURRENCY).without_tools(),
            protocol=PROTOCOL,
            config=CONFIG,
            out=folder / "run",
            processes=processes,
            progress=False,
        )
        if found.never != len(samples) or any(
            level.asked != len(samples) for level in found.ladder
        ):
            raise BenchError("a question was not asked at every level")

    return spent(len(samples), cpu_of(work), counts)


def counting(
    counts: Path, *arguments: Any
) -> tuple[Callable[[Sample], Item[asked.Rows]], AsyncPolicy]:
    """The questions and the policy of a process that counts what it decodes."""
    count_decodes(counts)
    return vars(asked)["_elsewhere"](*arguments)


def main() -> None:
    """Select once and print the cost."""
    url, folder, files, processes = sys.argv[1:]
    print(json.dumps(asdict(selecting(url, Path(folder), int(files), int(processes)))))
