"""Pictures as a server takes them: PNG, which loses nothing, each encoded once."""

import base64
import os
from hashlib import sha256
from pathlib import Path
from threading import Lock, get_ident
from weakref import WeakKeyDictionary

from lfpc.errors import PolicyError
from lfpc.images import View, png_bytes


class PictureUrls:
    """The address of each view: a data URL, or with a folder that of a file there, named after its
    pixels.

    An address is remembered for as long as its view lives, so no picture of an episode is encoded
    twice.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = None if folder is None else folder.resolve()
        self._known: WeakKeyDictionary[View, str] = WeakKeyDictionary()
        self._making: WeakKeyDictionary[View, Lock] = WeakKeyDictionary()
        self._lock = Lock()

    def url(self, view: View) -> str:
        """Where the server finds the pixels of `view`."""
        with self._lock:
            making = self._making.setdefault(view, Lock())
        with (
            making
        ):  # another thread may be at the same view, which questions about one picture share
            found = self._known.get(view)
            if found is None:
                found = self._known[view] = (
                    _data_url(view) if self._folder is None else _file_url(view, self._folder)
                )
            return found


def _data_url(view: View) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(view)).decode("ascii")


def _file_url(view: View, folder: Path) -> str:
    name = sha256(repr((view.image.mode, view.size)).encode() + view.image.tobytes()).hexdigest()
    file = folder / f"{name}.png"
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            draft = folder / f".{name}.{os.getpid()}.{get_ident()}.part"
            draft.write_bytes(png_bytes(view))
            draft.replace(file)
    except OSError as error:
        raise PolicyError(
            f"{file}: the picture cannot be written: {error.strerror or error}"
        ) from error
    return file.as_uri()
