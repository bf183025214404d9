"""Pictures for a server as lossless PNG, each encoded once."""

import base64
from hashlib import sha256
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary

from lfpc.errors import DiskError, PolicyError
from lfpc.images import View, png_bytes
from lfpc.storage.files import atomic_file


class PictureUrls:
    """Addresses of views: data URLs, or files in a folder, named by their pixels.

    An address is cached for the lifetime of its view, so no picture of an episode is encoded twice.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = None if folder is None else folder.resolve()
        self._known: WeakKeyDictionary[View, str] = WeakKeyDictionary()
        self._making: WeakKeyDictionary[View, Lock] = WeakKeyDictionary()
        self._lock = Lock()

    def url(self, view: View) -> str:
        """The address of `view` for the server."""
        with self._lock:
            making = self._making.setdefault(view, Lock())
        with making:  # threads may share a view of one picture
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
    if not file.exists():
        try:
            with atomic_file(file, "wb") as out:
                out.write(png_bytes(view))
        except DiskError as error:
            raise PolicyError(str(error)) from error
    return file.as_uri()
