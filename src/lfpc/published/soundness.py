"""Checks of picture files, which are read to their end so that damage is found before training, and
their hashes.
"""

from pathlib import Path

from lfpc.errors import PictureError
from lfpc.images import MAX_ASPECT
from lfpc.picture_files import picture_file, upright_rgb
from lfpc.published.rejections import Rejected, RejectReason
from lfpc.storage.identity import file_hash


def sound_picture(picture: Path, min_side: int = 1) -> str:
    """Read a picture file to its end and turn it upright, as its use does. Returns its format,
    such as "png".

    Args:
        picture: the file.
        min_side: minimum pixels of its shorter side.
    Raises:
        Rejected: too small or too narrow.
        PictureError: missing, damaged, too large, or not a picture.
    """
    with picture_file(picture) as file:
        width, height = file.size
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
        upright_rgb(file)
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
