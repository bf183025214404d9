"""Selects resolutions of many samples with a policy that answers at once:
`python -m bench.selection_scale FOLDER COUNT`.
"""

import json
import sys
import time
from pathlib import Path
from shutil import rmtree
from zlib import crc32

from PIL import Image

from bench.side_by_side import peak_memory_mib
from lfpc.caches import byte_cache
from lfpc.dialogue import Context
from lfpc.evaluation.opened import first_view
from lfpc.images import open_picture, picture_bytes, view_bytes
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.samples import Sample
from lfpc.selection.config import SelectConfig
from lfpc.selection.run import select

PICTURE_MEMORY = 2**26
"""Bytes; 130 pictures of this benchmark, or four times as many views."""


def main(folder: Path, count: int) -> None:
    """Print samples, seconds, CPU seconds and the peak of this process's memory as JSON."""
    samples = [_sample(folder, i) for i in range(count)]
    _keep_few_pictures()
    rmtree(folder / "run", ignore_errors=True)
    began = time.perf_counter(), time.process_time()
    config = SelectConfig(ladder=(256, 64, 36, 25))
    select(
        samples,
        ScriptedPolicy(_guess),
        protocol=PROTOCOLS["qwen2_5_vl"],
        config=config,
        out=folder / "run",
        progress=False,
    )
    seconds = time.perf_counter() - began[0]
    cpu = time.process_time() - began[1]
    print(
        json.dumps(
            {
                "samples": count,
                "seconds": seconds,
                "cpu_seconds": cpu,
                "peak_mib": peak_memory_mib(),
            }
        )
    )


def _sample(folder: Path, i: int) -> Sample:
    picture = folder / "pictures" / f"{i}.png"
    if not picture.exists():
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (448, 280), (i % 256, i // 256, 99)).save(picture, compress_level=1)
    return Sample(id=str(i), image=picture, question="Which colour?", answer="A")


def _keep_few_pictures() -> None:
    """Give every module of this process an `open_picture`, and the first views, a cache of
    `PICTURE_MEMORY`: else they would still be growing at the end, and hide the selection's bytes.
    """
    names = vars(sys.modules[first_view.__module__])
    names["_view"] = byte_cache(PICTURE_MEMORY, view_bytes)(names["_view"].__wrapped__)
    replaced = open_picture  # which is another one as soon as this module has had its turn
    few = byte_cache(PICTURE_MEMORY, picture_bytes)(replaced.__wrapped__)
    for module in list(sys.modules.values()):
        if getattr(module, "open_picture", None) is replaced:
            vars(module)["open_picture"] = few


def _guess(context: Context) -> str:
    chance = crc32(
        repr((context.first_view.size, context.first_view.image.getpixel((0, 0)))).encode()
    )
    return f"<answer>{'AB'[chance % 5 == 0]}</answer>"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
