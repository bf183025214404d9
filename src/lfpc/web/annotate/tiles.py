"""Deep zoom: a picture as tiles at halved sizes, cut on request. Level 0 is one tile, the last
level the original.
"""

from io import BytesIO
from math import ceil, log2
from pathlib import Path

from PIL import Image

from lfpc.boxes import Size
from lfpc.caches import byte_cache
from lfpc.errors import PictureError
from lfpc.images import open_picture, picture_bytes
from lfpc.picture_files import MAX_PIXELS

TILE = 512
"""Side of a tile in pixels."""
QUALITY = 92
"""Quality of the JPEG files, without chroma subsampling, which keeps small red letters readable."""

original = byte_cache(4 * MAX_PIXELS, picture_bytes)(open_picture)
"""The picture, decoded once even if it is larger than the cache of `open_picture`."""


def last_level(size: Size) -> int:
    """The level at which a picture of `size` has its full resolution."""
    return max(0, ceil(log2(max(size) / TILE)))


@byte_cache(4 * MAX_PIXELS, picture_bytes)
def _halved(path: Path, times: int) -> Image.Image:
    return (original(path) if times == 1 else _halved(path, times - 1)).reduce(2)


def tile(path: Path, level: int, column: int, row: int) -> bytes:
    """One tile as a JPEG file.

    Raises:
        PictureError: the picture does not open, or has no such tile.
    """
    whole = original(path)
    halvings = last_level(whole.size) - level
    picture = (
        whole
        if halvings == 0
        else _halved(path, halvings)
        if 0 < halvings <= last_level(whole.size)
        else None
    )
    left = TILE * column
    top = TILE * row
    if picture is None or not (0 <= left < picture.width and 0 <= top < picture.height):
        raise PictureError(f"{path}: no tile {column}, {row} at level {level}")
    out = BytesIO()
    cut = picture.crop(
        (left, top, min(left + TILE, picture.width), min(top + TILE, picture.height))
    )
    cut.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()
