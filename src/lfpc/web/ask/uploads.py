"""Pictures that people and programs send in: checked before they are decoded, kept for a while,
dropped.
"""

from io import BytesIO
from pathlib import Path
from threading import Lock

from lfpc.errors import PictureError
from lfpc.images import MAX_ASPECT, open_picture
from lfpc.opening import opened
from lfpc.web.ask.store import FileStore

FORMATS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
}
"""What is taken, and the ending of its files. Not Pillow's others: some hand the bytes to another
program."""
LARGEST_FILE = 64 * 2**20
"""Bytes of a picture's file."""
MOST_PIXELS = 100_000_000
"""Pixels of a picture; decoded it takes four bytes each."""
KEPT_BYTES = 2**30
"""Of all pictures that are kept, as files."""


class Uploads:
    """Pictures that were sent in, by the names they were given, in `folder`."""

    def __init__(
        self, folder: Path, *, kept_bytes: int = KEPT_BYTES, most_pixels: int = MOST_PIXELS
    ) -> None:
        self._shelf = FileStore(folder, kept_bytes)
        self._most_pixels = most_pixels
        self._decoding = Lock()

    def add(self, data: bytes) -> str:
        """Keep a picture that can be opened; returns its name.

        Raises:
            PictureError: it is too large, no picture, or a broken one; says which, and names no
                file of the server.
        """
        ending = checked_ending(data, self._most_pixels)
        name = self._shelf.put(data, ending)
        path = self._shelf.folder / name
        try:
            with self._decoding:  # one at a time: each may take hundreds of megabytes
                open_picture(path)
        except (
            Exception
        ) as error:  # of a hostile file Pillow's readers raise whatever they come across
            self._shelf.drop(name)
            raise PictureError("the picture is broken: its file is cut off or damaged") from error
        return name

    def find(self, name: str) -> Path:
        """The file of the picture called `name`.

        Raises:
            PictureError: there is none (any more).
        """
        path = self._shelf.find(name)
        if path is None:
            raise PictureError("the picture is no longer kept here; send it again")
        return path


def checked_ending(data: bytes, most_pixels: int = MOST_PIXELS) -> str:
    """The file ending for the picture in `data`, of which only the header is read.

    Raises:
        PictureError: no picture of a format that is taken, or too large, or too narrow.
    """
    if len(data) > LARGEST_FILE:
        raise PictureError(
            f"the picture's file has {len(data):,} bytes; at most {LARGEST_FILE:,} are taken"
        )
    try:
        with opened(BytesIO(data), formats=tuple(FORMATS)) as file:
            ending = FORMATS[file.format or ""]
            (width, height) = file.size
    except Exception as error:  # as above
        raise PictureError(
            f"this is not a picture that can be read here; {', '.join(FORMATS)} files can"
        ) from error
    if width * height > most_pixels:
        raise PictureError(
            f"the picture has {width} x {height} pixels; at most {most_pixels:,} are taken"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureError(
            f"the picture has {width} x {height} pixels; the longer side is at most "
            f"{MAX_ASPECT} times the shorter one"
        )
    return ending
