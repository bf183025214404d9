"""Picture files opened without Pillow's limit on pixels, which is process-wide and belongs to the
importing program. Callers have their own limits.
"""

import struct
from collections.abc import Sequence
from typing import IO

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile


class _UnboundedTiff(TiffImageFile):
    """Pillow's TIFF plugin without its second check of the limit."""

    def load_prepare(self) -> None:
        if getattr(self, "_im", self) is None:  # older versions of Pillow have neither
            self.im = Image.core.new(self.mode, self._tile_size)
        super().load_prepare()


def opened(content: IO[bytes], name: str = "", formats: Sequence[str] | None = None) -> ImageFile:
    """The picture in `content`, with only the header read: `PIL.Image.open` without its check of
    `Image.MAX_IMAGE_PIXELS`. The caller closes `content`.

    Args:
        content: a file, open for reading.
        name: file name, for error messages.
        formats: names of Pillow's formats to try; None: all.
    Raises:
        UnidentifiedImageError: not a picture, or a WebP file of more than twice Pillow's limit,
            which its reader rejects itself.
        OSError, ValueError: from Pillow's readers of damaged files.
    """
    content.seek(0)
    head = content.read(16)
    for register in (Image.preinit, Image.init):  # a few formats first: all take a while to import
        register()
        for known in formats or tuple(Image.ID):
            if known not in Image.OPEN:
                continue
            factory, accepts = Image.OPEN[known]
            try:
                accepted = accepts is None or accepts(head)
                if not accepted or isinstance(accepted, str):  # a text says what is not installed
                    continue
                content.seek(0)
                return (_UnboundedTiff if factory is TiffImageFile else factory)(content, name)
            except (SyntaxError, IndexError, TypeError, struct.error):
                pass  # another format
            except Image.DecompressionBombError as error:
                raise UnidentifiedImageError(str(error)) from error
    raise UnidentifiedImageError(f"cannot identify image file {name or content!r}")
