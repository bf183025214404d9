"""Checks of picture files, which are read to their end so that damage is found before training, and
their hashes.
"""

from pathlib import Path
from threading import Lock

from lfpc.errors import PictureError
from lfpc.images import MAX_ASPECT, MAX_PIXELS, picture_file
from lfpc.published.rejections import Rejected, RejectReason
from lfpc.storage.identity import file_hash

LARGE = 50_000_000
"""Pixels above which only one picture is decoded at a time: the largest PNG files need
gigabytes."""
_large = Lock()


def sound_picture(picture: Path, min_side: int = 1) -> str:
    """Read a picture file to its end. Returns its format, such as "png".

    Args:
        picture: the file.
        min_side: minimum pixels of its shorter side.
    Raises:
        Rejected: too small, too narrow, or an absurd size.
        PictureError: missing, damaged, or not a picture.
    """
    with picture_file(picture, max_pixels=None) as file:
        width, height = file.size
        if width * height > MAX_PIXELS:
            raise Rejected(
                RejectReason.ABSURD,
                f"{picture}: {width} x {height} pixels, more than {MAX_PIXELS:,}; is this "
                f"a picture?",
            )
        if min(width, height) < min_side:
            raise Rejected(
                RejectReason.TINY,
                f"{picture}: {width} x {height} pixels; the shorter side needs {min_side}",
            )
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise Rejected(
                RejectReason.NARROW,
                f"{picture}: {width} x {height} pixels is narrower than 1 : {MAX_ASPECT}",
            )
        file.draft(
            "RGB", (width // 8, height // 8)
        )  # a JPEG file is read to its end, at an eighth of the size
        if file.width * file.height > LARGE:
            with _large:
                file.load()
        else:
            file.load()
        return (file.format or "png").lower()


def picture_digest(picture: Path) -> str:
    """Hash of a picture file, computed once while its size and time stay the same.

    Raises:
        PictureError: the file is unreadable.
    """
    try:
        return file_hash(picture)
    except OSError as error:
        raise PictureError(f"{picture}: cannot be read ({error.strerror or error})") from error
