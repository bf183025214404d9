"""Pictures from outside: checked before decoding, stored for a while."""

from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock

from lfpc.errors import PictureError
from lfpc.images import MAX_ASPECT, open_picture
from lfpc.picture_files import FORMATS, picture_file
from lfpc.web.ask.store import FileStore

LARGEST_FILE = 64 * 2**20
"""Maximum bytes of a picture's file."""
MOST_PIXELS = 100_000_000
"""Maximum pixels of a picture, four bytes each when decoded."""
KEPT_BYTES = 2**30
"""Maximum bytes of all stored pictures."""


class Uploads:
    """Uploaded pictures in `folder`, by name."""

    def __init__(
        self, folder: Path, *, kept_bytes: int = KEPT_BYTES, most_pixels: int = MOST_PIXELS
    ) -> None:
        self._store = FileStore(folder, kept_bytes)
        self._most_pixels = most_pixels
        self._decoding = Lock()

    def add(self, data: bytes) -> str:
        """Store a picture that opens; returns its name.

        Raises:
            PictureError: too large, not a picture, or damaged; the message names no file of the
                server.
        """
        ending = checked_ending(data, self._most_pixels)
        name = self._store.put(data, ending)
        path = self._store.folder / name
        try:
            with self._decoding:  # one at a time: each may take hundreds of megabytes
                open_picture(path)
        except PictureError as error:
            self._store.drop(name)
            raise PictureError("the picture is broken: its file is cut off or damaged") from error
        return name

    def held(self, name: str) -> AbstractContextManager[None]:
        """A context in which the picture is not dropped."""
        return self._store.held(name)

    def find(self, name: str) -> Path:
        """The file of the picture called `name`.

        Raises:
            PictureError: unknown or dropped picture.
        """
        path = self._store.find(name)
        if path is None:
            raise PictureError("the picture is no longer stored; send it again")
        return path


def checked_ending(data: bytes, most_pixels: int = MOST_PIXELS) -> str:
    """The file ending for the picture in `data`; reads only the header.

    Raises:
        PictureError: not an accepted format, too large, or too narrow.
    """
    if len(data) > LARGEST_FILE:
        raise PictureError(
            f"the picture's file has {len(data):,} bytes; the maximum is {LARGEST_FILE:,}"
        )
    try:
        with picture_file(data, max_pixels=None) as file:
            ending = FORMATS[file.format or ""]
            (width, height) = file.size
    except PictureError as error:
        raise PictureError(f"not a picture in one of the formats {', '.join(FORMATS)}") from error
    if width * height > most_pixels:
        raise PictureError(
            f"the picture has {width} x {height} pixels; the maximum is {most_pixels:,}"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureError(
            f"the picture has {width} x {height} pixels; the longer side is at most "
            f"{MAX_ASPECT} times the shorter one"
        )
    return ending
