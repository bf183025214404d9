"""Evaluating a served model on pictures of 7680 x 4320 from disk: CPU seconds per question,
questions a second per core, decodes per picture, and memory.

The server answers at once, and every picture has two questions with one crop each. Theirs is the
usual way, in which every view and crop decodes the whole picture and is packed at PNG level 6,
beside the requests of a bare loop. At best is one decode per picture, one resize and packing per
view and crop, and the same requests.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lfpc.images
from bench.eval_overhead import (
    BOX,
    RULES,
    bare_loop,
    conversation_of,
    cpu_of,
    evaluated,
    served,
)
from bench.large_picture import large_picture, theirs
from bench.limit import picture_seconds
from bench.side_by_side import peak_memory_mib
from lfpc.evaluation import run
from lfpc.images import crop_view, global_view, open_picture, png_bytes
from lfpc.samples import Sample

FILES = 24
"""Pictures: three times as many as `lfpc.images.PICTURE_BYTES` keeps."""
BUDGET = 1024


def measure(root: Path, out: Path, *, files: int = FILES) -> dict[str, Any]:
    """Our evaluation of half of the questions, and of all."""
    folder = out / "eval_large"
    samples = questions(folder, large_picture(out / "large.jpg"), files)
    half = samples[: len(samples) // 2]
    decoded: list[int] = []
    with served(root) as url, patch.object(lfpc.images, "upright_rgb", _counted(decoded)):
        evaluated(half, url, folder / "half", budget=BUDGET)
        peak = peak_memory_mib()
        decoded.clear()
        for cache in (open_picture, run._view):
            cache.cache.clear()
        cpu = cpu_of(lambda: evaluated(samples, url, folder / "all", budget=BUDGET))
        last = peak_memory_mib()
        conversations = [conversation_of(sample, budget=BUDGET) for sample in samples[:2]]
        requests = cpu_of(lambda: bare_loop(conversations, url)) / len(conversations)
    ours = cpu / len(samples)
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
        "questions_per_second_per_core": 1 / ours,
        "decodes_per_picture": len(decoded) / files,
        "peak_mib": {"half": peak, "all": last},
    }
    print(
        f"eval_large: {1 / ours:.1f} questions a second per core, "
        f"{found['decodes_per_picture']:.1f} decodes per picture (1 at best); peak memory "
        f"{peak:.0f} MiB after {len(half)} questions and {last:.0f} MiB "
        f"after {len(samples)} more"
    )
    return found


def _counted(decoded: list[int]) -> Callable[..., Any]:
    upright = lfpc.images.upright_rgb

    def counting(file: Any) -> Any:
        decoded.append(1)
        return upright(file)

    return counting


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
