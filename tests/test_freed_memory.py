"""Memory of pictures that are no longer in play."""

import os
import platform
import subprocess
import sys

import pytest

PICTURES = """
import os
from pathlib import Path
from PIL import Image
{before}
def mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
bytearray(30 * 2**20)
began = mib()
pictures, rows = [], []
for _ in range(5):
    pictures.append(Image.new("RGB", (4000, 2500), "red"))
    rows.append(b"x" * 100_000)
full = mib()
pictures.clear()
print(full - began, mib() - began)
"""
"""Prints MiB above the start: with pictures between small values, and without the pictures."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the limit is that of glibc")
@pytest.mark.parametrize(
    ("before", "limit", "returned"),
    [
        ("from lfpc.playing.memory import return_freed_blocks as f; f()", {}, True),
        ("", {}, False),
        (
            "from lfpc.playing.memory import return_freed_blocks as f; f()",
            {"MALLOC_MMAP_THRESHOLD_": str(2**25)},
            False,
        ),
    ],
    ids=["set", "not set", "set by the user"],
)
def test_freed_pictures_are_returned_to_the_system(before, limit, returned):
    environment = {k: v for k, v in os.environ.items() if k != "MALLOC_MMAP_THRESHOLD_"}
    done = subprocess.run(
        [sys.executable, "-c", PICTURES.format(before=before)],
        env=environment | limit,
        capture_output=True,
        text=True,
        check=True,
    )
    full, left = map(float, done.stdout.split())
    assert full > 150
    assert (left < 20) == returned
