"""Picture files: the one place that opens them, turns them upright and says what is wrong.

Nothing here trusts a file: what it is called, what its header claims, and that Pillow's readers
raise only their documented errors.
"""

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from lfpc.boxes import Box, Size
from lfpc.errors import HugePicture, LfpcError, MissingPicture, PictureError, first_line

FORMATS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "AVIF": ".avif",
    "JPEG2000": ".jp2",
    "PPM": ".ppm",
    "MPO": ".jpg",
}
"""Accepted formats, as Pillow names them, with their file endings. MPO is the JPEG of phones with
several pictures. No others: some of Pillow's readers start another program, as PostScript's does.
"""
ENDINGS = (*FORMATS.values(), ".jpeg", ".tiff", ".mpo", ".j2k", ".pgm", ".pbm")
"""File endings of pictures, for searches in folders."""
MAX_PIXELS = 400_000_000
"""Maximum pixels of a picture; a larger claim in a header is an attack or an error."""
LARGE = 50_000_000
"""Pixels above which only one picture is decoded at a time: the largest PNG files need
gigabytes."""
_large = Lock()
_ORIENTATION = 0x0112
"""EXIF tag."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation -> what turns the stored pixels upright. Source: EXIF 2.3, tag Orientation."""
_PADDING = 64
"""Zero bytes at the end of a JPEG file that are no damage."""


class _UnboundedTiff(TiffImageFile):
    """Pillow's TIFF plugin without its second check of the limit."""

    def load_prepare(self) -> None:
        if getattr(self, "_im", self) is None:  # older versions of Pillow have neither
            self.im = Image.core.new(self.mode, self._tile_size)
        super().load_prepare()


@dataclass(frozen=True, slots=True)
class Frame:
    """What the pixels of a picture file, and boxes on it, refer to."""

    stored: Size
    """(width, height) of the pixels in the file."""
    orientation: int
    """EXIF orientation, 1 (upright) to 8."""

    @property
    def size(self) -> Size:
        """(width, height) of the upright picture."""
        width, height = self.stored
        return (height, width) if self.orientation >= 5 else self.stored

    def upright(self, box: Box) -> Box:
        """A box of the stored pixels as the same region of the upright picture."""
        x0, y0, x1, y1 = box.corners
        if self.orientation >= 5:  # rows of the file are columns of the picture
            x0, y0, x1, y1 = y0, x0, y1, x1
        if self.orientation in (2, 3, 6, 7):
            x0, x1 = 1 - x1, 1 - x0
        if self.orientation in (3, 4, 7, 8):
            y0, y1 = 1 - y1, 1 - y0
        return Box(x0, y0, x1, y1)


@contextmanager
def picture_file(
    source: Path | bytes, *, max_pixels: int | None = MAX_PIXELS, formats: Sequence[str] = ()
) -> Iterator[ImageFile]:
    """The picture of a file or of its bytes, opened and not yet decoded.

    Use it with nothing but reading in the block: whatever goes wrong there is the picture's fault.

    Args:
        source: a path, or the bytes of a file.
        max_pixels: maximum pixels that the header may claim; None: no limit.
        formats: names of Pillow's formats to try; empty: all of `FORMATS`.
    Raises:
        MissingPicture: no such file.
        HugePicture: more than `max_pixels`.
        PictureError: not a file (a folder, a pipe), not a picture, or damaged.
    """
    name = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
    verdict = ": not" if isinstance(source, Path) else " that are not"
    try:
        with (
            _content(source) as content,
            _identified(content, name, formats or tuple(FORMATS)) as file,
        ):
            if max_pixels is not None and file.width * file.height > max_pixels:
                raise HugePicture(
                    f"{name}: {file.width} x {file.height} pixels, more than "
                    f"{max_pixels:,}; is this a picture?"
                )
            if file.format in ("JPEG", "MPO"):
                _check_tail(content)
            yield file
    except LfpcError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise MissingPicture(f"{name}: no such picture") from None
    # Any exception: on damaged files Pillow's readers raise struct.error, RuntimeError,
    # AttributeError and more.
    except Exception as error:
        raise PictureError(f"{name}{verdict} a readable picture ({first_line(error)})") from error


def _content(source: Path | bytes) -> IO[bytes]:
    """The content, from its beginning. A pipe is not opened, as that would wait for its writer."""
    if isinstance(source, bytes):
        return BytesIO(source)
    mode = os.stat(source).st_mode
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
        raise PictureError(f"{source}: not a readable picture (a {kind}, not a file)")
    return source.open("rb")


def real_path(picture: Path) -> Path:
    """The path of a picture with links resolved.

    Raises:
        PictureError: links in a circle, or a name that no file can have.
    """
    try:
        return picture.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise PictureError(f"{picture}: not a readable picture ({first_line(error)})") from error


def _identified(content: IO[bytes], name: str, formats: Sequence[str]) -> ImageFile:
    """The picture in `content`, with only the header read: `PIL.Image.open` without its check of
    `Image.MAX_IMAGE_PIXELS`, which is the whole process's.

    Raises:
        UnidentifiedImageError: none of the formats, or a WebP file of more than twice Pillow's
            limit, which its reader rejects itself.
    """
    head = content.read(16)
    for register in (Image.preinit, Image.init):  # a few formats first: all take a while to import
        register()
        for known in formats:
            if known not in Image.OPEN:
                continue
            factory, accepts = Image.OPEN[known]
            try:
                accepted = accepts is None or accepts(head)
                if not accepted or isinstance(accepted, str):  # a text names a missing package
                    continue
                content.seek(0)
                return (_UnboundedTiff if factory is TiffImageFile else factory)(content, name)
            except (SyntaxError, IndexError, TypeError, struct.error):
                pass  # another format
            except Image.DecompressionBombError as error:
                raise UnidentifiedImageError(str(error)) from error
    raise UnidentifiedImageError(f"none of {', '.join(formats)}")


def _check_tail(content: IO[bytes]) -> None:
    """Raise PictureError for a JPEG file that ends in zeros in place of its end marker, as an
    interrupted copy leaves it: its reader would fill the rest with grey and say nothing.
    """
    place = content.tell()
    end = content.seek(0, os.SEEK_END)
    zeros = 0
    while zeros < end:
        step = min(1 << 16, end - zeros)
        content.seek(end - zeros - step)
        rest = content.read(step).rstrip(b"\0")
        zeros += step - len(rest)
        if rest:
            if zeros > _PADDING and not rest.endswith(b"\xff\xd9"):
                raise OSError(f"the last {zeros:,} of its {end:,} bytes are zeros")
            break
    content.seek(place)


def frame_of(picture: Path) -> Frame:
    """The frame of a picture file; reads no more than the header, if the format allows.

    Raises:
        PictureError: as `picture_file`, as far as the header shows.
    """
    with picture_file(picture) as file:
        return _frame(file)


def _frame(file: ImageFile) -> Frame:
    """The frame of a file that is not yet decoded."""
    found = file.getexif().get(_ORIENTATION, 1)
    orientation = int(found) if found in _TURNS else 1
    if isinstance(file, TiffImageFile):  # newer versions of Pillow report the upright size
        return Frame((file.tag_v2[256], file.tag_v2[257]), orientation)
    return Frame(file.size, orientation)


def upright_rgb(file: ImageFile) -> Image.Image:
    """The pixels of an opened file as upright RGB, uncopied if they already are: large copies are
    slow. They stay valid when the file is closed.

    EXIF orientation is applied, transparency becomes white, other modes become 8-bit RGB; see
    `eight_bit` for the brightness of deep greys.
    """
    picture = eight_bit(_upright(file))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert(
            "RGB"
        )
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def upright_grey(file: ImageFile) -> Image.Image:
    """The pixels of an opened file as upright 8-bit grey. A JPEG file that was drafted as grey is
    not decoded in colour.
    """
    picture = _upright(file)
    return (picture.convert("RGBA") if picture.mode == "P" else eight_bit(picture)).convert("L")


def _upright(file: ImageFile) -> Image.Image:
    """The decoded pixels, upright, in the mode of the file. EXIF data is read and never written:
    that would refuse pictures with an impossible value in any other tag.
    """
    orientation = _frame(file).orientation
    if file.width * file.height > LARGE:
        with _large:
            file.load()
    else:
        file.load()
    if orientation == 1 or isinstance(file, TiffImageFile):  # Pillow turns TIFF files itself
        return file
    return file.transpose(_TURNS[orientation])


def eight_bit(picture: Image.Image) -> Image.Image:
    """Deep greys (16-bit, 32-bit, float) as 8-bit greys and LAB as RGB; other modes unchanged. PIL
    would clip the greys, and refuses LAB.
    """
    if picture.mode == "LAB":
        to_rgb = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        return ImageCms.applyTransform(picture, to_rgb) or picture
    if not picture.mode.startswith("I") and picture.mode != "F":
        return picture
    levels = np.asarray(picture, dtype=np.float64)
    levels = np.where(np.isfinite(levels), levels, 0.0)
    lowest = min(0.0, float(levels.min(initial=0)))
    white = _white(float(levels.max(initial=0)) - lowest, whole=picture.mode != "F")
    shares = (levels - lowest) / white
    return Image.fromarray((np.clip(shares, 0, 1) * 255).round().astype(np.uint8))


def _white(highest: float, *, whole: bool) -> float:
    """The value of white in a grey picture with values from 0 to `highest`.

    Files do not name the depth that a camera used, so it is the smallest usual one that holds the
    values: 8, 10, 12, 14 or 16 bits for whole numbers, 0 to 1 or 0 to 255 for floats. Beyond, the
    highest value is white.
    """
    usual = [2**bits - 1 for bits in (8, 10, 12, 14, 16)] if whole else [1, 255]
    return next((float(white) for white in usual if highest <= white), highest)


def plain_bytes(picture: Path) -> bytes | None:
    """The bytes of a picture file, read to its end, if readers that ignore EXIF orientation,
    transparency and depth show it as it is; None: they would show something else.

    Raises:
        PictureError: see `picture_file`.
    """
    with picture_file(picture) as file:
        plain = _frame(file).orientation == 1 and file.mode in ("RGB", "L")
        file.draft("RGB", (file.width // 8, file.height // 8))  # quickly to the end of a JPEG file
        upright_rgb(file)
        return picture.read_bytes() if plain and "transparency" not in file.info else None
