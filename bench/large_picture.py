"""A large JPEG to what a question needs: its view at 1,024 visual tokens and three crops, each as
the bytes of a PNG.

Theirs, as is usual: every item decodes the whole picture, converts it to RGB, resizes (bicubic) and
packs at PNG level 6. Ours: decoded once, without copies of the large picture, packed by
`png_bytes`. `fast` also shrinks the picture by block averages before the bicubic filter. Before
anything is timed the pixels of all items are compared: they must be the same, but for the fast
view, whose distance is stated.
"""

import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from math import inf, log10
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from bench.side_by_side import BenchError
from lfpc.boxes import Box, Corners, Size
from lfpc.images import (
    FAST_GAP,
    CropRules,
    View,
    crop_view,
    global_view,
    open_picture,
    png_bytes,
)

SIZE = (7680, 4320)
BUDGET = 1024
BOXES = (Box(0.1, 0.2, 0.25, 0.4), Box(0.5, 0.5, 0.56, 0.6), Box(0.7, 0.1, 0.95, 0.45))
Items = list[bytes]
"""PNG files: the view, then the crops."""


def measure(out: Path, rounds: int, *, fast: bool = False) -> dict[str, Any]:
    """CPU seconds per picture both ways, taken in turns; medians of `rounds`.

    Both use one thread, so on an idle machine these are the seconds on the wall, which are given
    too.

    Raises:
        BenchError: the two ways give different pixels where they must not.
    """
    file = large_picture(out / "large.jpg")
    wanted = [(view.size, view.cut) for view in views(file)]
    sides: tuple[Callable[[], Items], Callable[[], Items]] = (
        lambda: ours(file, fast=fast),
        lambda: theirs(file, wanted),
    )
    first = sides[0]()
    usual = sides[1]()
    distances = [psnr(a, b) for a, b in zip(first, usual, strict=True)]
    if min(distances[fast:]) < inf:
        raise BenchError("the two ways give different pixels")
    taken = [[seconds(side) for side in sides] for _ in range(rounds)]
    wall, cpu = (
        [median(took[side][clock] for took in taken) for side in (0, 1)] for clock in (0, 1)
    )
    if fast:
        print(
            f"large_picture_fast: the view is {distances[0]:.1f} dB (PSNR) from the exact "
            f"one, the crops are exact"
        )
    return {
        "ratio": cpu[1] / cpu[0],
        "ours": cpu[0],
        "theirs": cpu[1],
        "unit": "CPU s/picture",
        "at_best": at_best(file, rounds, fast=fast),
        "rounds": rounds,
        "jpeg_mb": file.stat().st_size / 1e6,
        "seconds": {"ours": wall[0], "theirs": wall[1]},
        "view_psnr_db": distances[0] if fast else "identical",
        "png_mb": {"ours": sum(map(len, first)) / 1e6, "theirs": sum(map(len, usual)) / 1e6},
    }


def views(file: Path, *, fast: bool = False) -> list[View]:
    """What a question about `file` needs, without the package's cache of opened pictures."""
    picture = open_picture.__wrapped__(file)
    return [
        global_view(picture, BUDGET, fast=fast),
        *(crop_view(picture, box, CropRules()) for box in BOXES),
    ]


def ours(file: Path, *, fast: bool) -> Items:
    """The package's way."""
    return [png_bytes(view) for view in views(file, fast=fast)]


def at_best(file: Path, rounds: int, *, fast: bool) -> float:
    """CPU seconds of one decode, one resize per item and one packing of its pixels, each the lowest
    of `rounds`.
    """
    picture = open_picture.__wrapped__(file)
    total = min(seconds(lambda: open_picture.__wrapped__(file))[1] for _ in range(rounds))
    for view in views(file, fast=fast):
        gap = FAST_GAP if fast and view.cut is None else None
        resize = partial(picture.resize, resample=Image.Resampling.BICUBIC, reducing_gap=gap)
        parts = (partial(resize, view.size, box=view.cut), partial(png_bytes, view))
        total += sum(min(seconds(part)[1] for _ in range(rounds)) for part in parts)
    return total


def theirs(file: Path, wanted: list[tuple[Size, Corners | None]]) -> Items:
    """The usual way, for items of these sizes, cut from these pixels (None: the whole)."""
    items: Items = []
    for size, cut in wanted:
        with Image.open(file) as opened:
            shown = opened.convert("RGB").resize(size, Image.Resampling.BICUBIC, box=cut)
        packed = BytesIO()
        shown.save(packed, "PNG", compress_level=6)
        items.append(packed.getvalue())
    return items


def psnr(a: bytes, b: bytes) -> float:
    """Peak signal-to-noise ratio of two PNG files in dB; infinite for the same pixels."""
    first, second = (np.asarray(Image.open(BytesIO(png)), dtype=np.float32) for png in (a, b))
    error = float(np.square(first - second).mean())
    return 10 * log10(255**2 / error) if error else inf


def seconds(side: Callable[[], object]) -> tuple[float, float]:
    """(on the wall, of this process's CPU)."""
    wall = time.perf_counter()
    cpu = time.process_time()
    side()
    return time.perf_counter() - wall, time.process_time() - cpu


def large_picture(path: Path) -> Path:
    """A JPEG with detail at every scale, as photographs have (amplitude falls with frequency), made
    once from a seed.
    """
    if not path.is_file():
        rng = np.random.default_rng(0)
        light = np.zeros(SIZE[::-1], np.float32)
        for octave in range(11):
            size = max(2, SIZE[0] >> octave), max(2, SIZE[1] >> octave)
            noise = Image.fromarray(rng.standard_normal(size[::-1], dtype=np.float32))
            light += 1.25**octave * np.asarray(noise.resize(SIZE, Image.Resampling.BICUBIC))
        grey = Image.fromarray(np.clip(127 + light * (50 / light.std()), 0, 255).astype(np.uint8))
        tints = [
            Image.fromarray(rng.integers(64, 192, (27, 48), dtype=np.uint8)).resize(
                SIZE, Image.Resampling.BICUBIC
            )
            for _ in "br"
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.merge("YCbCr", (grey, *tints)).convert("RGB").save(path, quality=90)
    return path
