"""Freed memory of pictures goes back to the system."""

import ctypes
import os
import platform
from functools import cache

BLOCK = 2**22
"""Bytes from which a block is mapped alone: below Pillow's blocks of 16 MB, and below the views and
requests of large pictures."""
_M_MMAP_THRESHOLD = -3
"""Its number in glibc's malloc.h."""


@cache
def return_freed_blocks() -> None:
    """Let glibc map each block of `BLOCK` bytes or more alone, so that freeing gives it back.

    Without this the limit grows with what the process frees, up to 32 MB; then pictures share heaps
    with small objects, and a process that plays pictures of 8K grows by a GB within a hundred
    questions. A limit of the user's own (MALLOC_MMAP_THRESHOLD_) stays. Does nothing elsewhere.
    """
    if platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, BLOCK)
