"""Pictures in published rows: a path, bytes or base64 in a cell. Pictures without a file become
files, named by their content.
"""

import base64
import binascii
import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from lfpc.boxes import Box
from lfpc.errors import BoxError, MissingPicture, PictureError, SampleError
from lfpc.picture_files import frame_of, picture_file
from lfpc.storage.files import atomic_file

_LONGEST_NAME = 4096
"""Maximum characters of a path; a longer text is base64."""
_LONGEST_FILE_NAME = 255
"""Characters up to which a text that is neither a file nor a picture is reported as a file name."""
_SMALLEST_PICTURE = 40
"""Characters of base64 that no picture goes below: a GIF file of one pixel has 35 bytes."""
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")


class PictureStore:
    """A folder of pictures named by the hash of their bytes: equal pictures are written once, also
    by a resumed import.
    """

    def __init__(self, folder: Path, roots: Sequence[Path] = (), strip: Sequence[str] = ()) -> None:
        """Store pictures in `folder`; search relative paths under `roots`, in order, without the
        prefixes in `strip`.
        """
        self._folder = folder
        self._roots = tuple(roots)
        self._strip = tuple(strip)

    def file_of(self, cell: Any) -> Path:
        """The file of a picture cell: a path (absolute, under a root, `file://`), bytes,
        `{"bytes", "path"}`, base64 or a data URI.

        Raises:
            PictureError: an empty cell, a missing file, or no picture.
        """
        match cell:
            case bytes() | bytearray() | memoryview():
                return self._keep(bytes(cell))
            case Mapping():
                return self.file_of(cell["bytes"] if cell.get("bytes") else cell.get("path"))
            case list() | tuple() if len(cell) == 1:
                return self.file_of(cell[0])
            case str() if cell.strip():
                return self._file_of_text(cell.strip())
            case _:
                raise PictureError(
                    f"a picture is a path, bytes, base64 or a data URI, got {_short(cell)}"
                )

    def _file_of_text(self, text: str) -> Path:
        if text.startswith("data:"):
            return self._keep(_decoded(text.partition(",")[2]))
        if len(text) > _LONGEST_NAME:
            return self._keep(_decoded(text))
        path = Path(
            self._stripped(unquote(urlparse(text).path) if text.startswith("file://") else text)
        )
        tried = [path] if path.is_absolute() else [root / path for root in self._roots]
        for file in tried:
            if _is_file(file):
                return file
        missing = MissingPicture(
            f"no such picture: {text} (looked for "
            f"{', '.join(map(str, tried)) or 'nothing: no folder was given'})"
        )
        if not _is_base64(text):
            raise missing
        try:
            return self._keep(_decoded(text))
        except PictureError as error:
            raise (missing if len(text) <= _LONGEST_FILE_NAME else error) from None

    def _keep(self, content: bytes) -> Path:
        name = hashlib.sha256(content).hexdigest()
        with picture_file(content, max_pixels=None) as picture:
            ending = (picture.format or "png").lower()
        file = self._file(name, ending)
        if not file.exists():
            with atomic_file(file, "wb") as out:
                out.write(content)
        return file

    def adopt(self, file: Path, ending: str, *, link: bool = False) -> Path:
        """The stored copy of a picture file from elsewhere, named by its content; a file of the
        store is returned unchanged.

        Args:
            file: the picture.
            ending: file ending in the store, such as "png".
            link: whether to make a hard link in place of a copy, if the disk allows it.
        Raises:
            PictureError: the file is unreadable.
            DiskError: the disk refuses.
        """
        if self._folder in file.parents:
            return file
        try:
            with file.open("rb") as content:
                kept = self._file(hashlib.file_digest(content, "sha256").hexdigest(), ending)
                if not kept.exists() and not (link and _linked(file, kept)):
                    content.seek(0)
                    with atomic_file(kept, "wb") as out:
                        shutil.copyfileobj(content, out)
        except OSError as error:
            raise PictureError(
                f"{file}: cannot be copied into {self._folder} ({error.strerror or error})"
            ) from error
        return kept

    def _stripped(self, path: str) -> str:
        front = next((front for front in self._strip if path.startswith(front)), "")
        return path.removeprefix(front).lstrip("/") if front else path

    def _file(self, name: str, ending: str) -> Path:
        return self._folder / name[:2] / f"{name}.{ending}"


def _linked(file: Path, kept: Path) -> bool:
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.hardlink_to(file.resolve())
    except OSError:
        return False
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # an impossible file name
        return False


def _is_base64(text: str) -> bool:
    """Whether a text that names no file can be a picture in base64."""
    return (
        len(text) >= _SMALLEST_PICTURE
        and len("".join(text.split())) % 4 == 0
        and _BASE64.fullmatch(text) is not None
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=False)
    except (binascii.Error, ValueError) as error:
        raise PictureError(
            f"neither the path of a picture nor base64: {_short(text)} ({error})"
        ) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def pixel_boxes(value: Any, picture: Path, *, form: str = "xyxy") -> tuple[tuple[Box, ...], ...]:
    """Boxes in pixels of a picture file as truth boxes of a `Sample`: one target each, in fractions
    of the upright picture.

    Args:
        value: one box or a list of boxes of four numbers, or the text of such a list.
        picture: the file, of which only the header is read.
        form: "xyxy" for corners, "xywh" for corner and size.
    Raises:
        SampleError: not boxes, or a box without area inside the picture.
        PictureError: not a picture file.
    """
    boxes = _numbers(value)
    if not boxes:
        return ()
    frame = frame_of(picture)
    try:
        corners = [(a, b, a + c, b + d) if form == "xywh" else (a, b, c, d) for a, b, c, d in boxes]
        placed = [Box.from_annotation(xyxy, frame.stored) for xyxy in corners]
        return tuple((frame.upright(box),) for box in placed)
    except (BoxError, OverflowError) as error:
        raise SampleError(
            f"{error} (picture of {frame.stored[0]} x {frame.stored[1]} pixels)"
        ) from error


def _numbers(value: Any) -> list[list[float]]:
    if isinstance(value, str):
        try:
            value = json.loads(value.replace("(", "[").replace(")", "]") or "[]")
        except (ValueError, RecursionError) as error:
            raise SampleError(f"boxes are lists of four numbers, got {_short(value)}") from error
    if value is None:
        return []
    try:
        rows = [value] if value and not isinstance(value[0], list | tuple) else value
        boxes = [[float(number) for number in row] for row in rows]
    except (TypeError, ValueError, KeyError) as error:
        raise SampleError(f"boxes are lists of four numbers, got {_short(value)}") from error
    if any(len(box) != 4 for box in boxes):
        raise SampleError(f"boxes are lists of four numbers, got {_short(value)}")
    return boxes
