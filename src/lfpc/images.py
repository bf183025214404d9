"""Pictures and views.

A `View` is pixels plus the region of the original they depict: the global picture depicts the
whole, a crop its box, a noise probe the box that it replaces. Budgets are visual tokens; one token
is `factor` x `factor` pixels.
"""

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import ceil, floor, log, sqrt
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageCms, ImageFilter, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from lfpc.boxes import WHOLE, Box, Corners, Size
from lfpc.caches import byte_cache
from lfpc.errors import ConfigError, LfpcError, MissingPicture, PictureError


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
                if not accepted or isinstance(accepted, str):  # a text names a missing package
                    continue
                content.seek(0)
                return (_UnboundedTiff if factory is TiffImageFile else factory)(content, name)
            except (SyntaxError, IndexError, TypeError, struct.error):
                pass  # another format
            except Image.DecompressionBombError as error:
                raise UnidentifiedImageError(str(error)) from error
    raise UnidentifiedImageError(f"cannot identify image file {name or content!r}")


_ORIENTATION = 0x0112
"""EXIF tag."""
LEAST_TOKENS = {32: 64}
"""Fewest visual tokens of a picture, by the side of a token in pixels: Qwen3-VL's processor
enlarges smaller pictures to 65,536 pixels. Others are 1."""
MAX_ASPECT = 200
"""Maximum aspect ratio of Qwen's processors."""
MAX_PIXELS = 400_000_000
"""Maximum pixels of a picture; a larger claim in a header is an attack or an error."""
LARGEST_COPY = 50_000_000
"""Maximum pixels of a cut that is copied before it is resized."""
PICTURE_BYTES = 2**30
"""Bytes of cached originals: eight of 7680 x 4320 pixels, or 1,000 of 512 x 512."""
FAST_GAP = 1.5
"""Minimum ratio to the wanted size after block averaging in fast mode."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class View:
    """A picture for the policy: pixels, and the region of the original that they depict. Compared
    by identity.
    """

    image: Image.Image
    region: Box
    original: Size | None = None
    """Size of the whole original in pixels; None: unknown."""
    cut: Corners | None = None
    """Cut pixels of the original (left, top, right, bottom); None: not cut from it."""

    @property
    def size(self) -> Size:
        """(width, height) of the pixels."""
        return self.image.size

    @property
    def original_size(self) -> Size:
        """(width, height) of the whole original; if unknown, at the scale of the shown region."""
        x0, y0, x1, y1 = self.region.corners
        return self.original or (
            round(self.image.width / max(x1 - x0, 1e-6)),
            round(self.image.height / max(y1 - y0, 1e-6)),
        )


@dataclass(frozen=True, slots=True)
class ToolBox(Box):
    """A box with the exact pixels that a published tool cuts for it; see `crop_view`."""

    cut: Corners | None = None
    """Cut pixels of the original (left, top, right, bottom). Beyond its edges the crop is black;
    None: those of the box."""
    sides: tuple[float, float] | None = None
    """(width, height) of the tool's picture, before the processor resizes it; None: of `cut`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropRules:
    """Resolution of crops. Below `LEAST_TOKENS` they are enlarged to that."""

    factor: int = 28
    """Side of one visual token in pixels: 28 for Qwen2.5-VL, 32 for Qwen3-VL."""
    min_tokens: int = 16
    """Minimum visual tokens; smaller crops are enlarged."""
    max_tokens: int = 1024
    """Maximum visual tokens; larger crops are reduced."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_tokens <= self.max_tokens:
            raise ConfigError(
                f"--crop-tokens are two numbers from 1 in ascending order, got {self.min_tokens} "
                f"{self.max_tokens}"
            )
        check_budget(self.max_tokens, self.factor, "the maximum of --crop-tokens")


def check_budget(budget: int, factor: int, name: str) -> None:
    """Check that a processor with tokens of `factor` pixels shows pictures of `budget` tokens.

    Args:
        name: what sets the budget, for the message.
    Raises:
        ConfigError: it enlarges them.
    """
    least = LEAST_TOKENS.get(factor, 1)
    if budget < least:
        raise ConfigError(
            f"{name} must be at least {least} visual tokens, got {budget}: Qwen3-VL's processor "
            f"enlarges smaller pictures"
        )


def smart_resize(size: Size, *, min_tokens: int, max_tokens: int, factor: int = 28) -> Size:
    """The size to which a Qwen-VL processor resizes a picture of `size`.

        sides rounded to the factor; if the area is above max: scaled by sqrt(area / max) and
        floored; below min: ceiled

    The result is a fixed point: a server does not resize it again.

    Args:
        size: (width, height) in pixels.
        min_tokens, max_tokens: bounds of the area, in tokens of `factor` x `factor` pixels.
        factor: side of a token in pixels.
    Raises:
        PictureError: the picture is narrower than 1 : 200.
    Source: Qwen2-VL image processing (smart_resize), without rounding a side to 0 (as in
    qwen-vl-utils).
    """
    width, height = size
    if max(size) / max(min(size), 1) > MAX_ASPECT:
        raise PictureError(
            f"a picture of {width} x {height} pixels is narrower than 1 : {MAX_ASPECT}; "
            f"cut it into pieces first"
        )
    return resized_size(size, min_tokens=min_tokens, max_tokens=max_tokens, factor=factor)


def resized_size(
    size: tuple[float, float], *, min_tokens: int, max_tokens: int, factor: int = 28
) -> Size:
    """`smart_resize` for any aspect, and for sides that are not whole, as the tools of published
    scripts call it.
    """
    width, height = size
    h = max(factor, round(height / factor) * factor)
    w = max(factor, round(width / factor) * factor)
    low = min_tokens * factor * factor
    high = max_tokens * factor * factor
    if h * w > high:
        beta = sqrt(height * width / high)
        h = max(factor, floor(height / beta / factor) * factor)
        w = max(factor, floor(width / beta / factor) * factor)
    elif h * w < low:
        beta = sqrt(low / (height * width))
        h = ceil(height * beta / factor) * factor
        w = ceil(width * beta / factor) * factor
    return w, h


def shown_size(size: Size, *, min_tokens: int = 1, max_tokens: int, factor: int = 28) -> Size:
    """The size in which a picture of `size` is shown: `smart_resize`, with no more than
    `max_tokens`.

    A picture that is narrower than the budget is one token wide in `smart_resize`, and exceeds the
    budget with its length. Here the length is cut to the budget, at the cost of the aspect ratio.
    So is the aspect of a picture that rounding down leaves below `LEAST_TOKENS`: it is widened.

    Args and errors: see `smart_resize`. The result is a fixed point of it.
    """
    least = LEAST_TOKENS.get(factor, 1)
    most = max(max_tokens, least)
    width, height = smart_resize(
        size, min_tokens=max(min_tokens, least), max_tokens=most, factor=factor
    )
    if min(width, height) == factor:
        width, height = min(width, most * factor), min(height, most * factor)
    if least == 1 or least <= visual_tokens((width, height), factor) <= most:
        return width, height
    return _between(size, least, most, factor)


def _between(size: Size, least: int, most: int, factor: int) -> Size:
    """The size of `least` to `most` tokens with the aspect ratio nearest to that of `size`."""
    wanted = size[0] / size[1]
    grids = [
        (columns, min(max(round(columns / wanted), ceil(least / columns)), most // columns))
        for columns in range(1, most + 1)
        if most // columns * columns >= least
    ]
    columns, rows = min(grids, key=lambda grid: abs(log(grid[0] / grid[1] / wanted)))
    return columns * factor, rows * factor


def visual_tokens(size: Size, factor: int = 28) -> int:
    """Visual tokens of a picture of `size`, a multiple of `factor`."""
    return (size[0] // factor) * (size[1] // factor)


def picture_bytes(picture: Image.Image) -> int:
    """Bytes of a decoded RGB picture: PIL uses 4 per pixel."""
    return 4 * picture.width * picture.height


def view_bytes(view: View) -> int:
    """Bytes of a view in memory."""
    return picture_bytes(view.image)


@byte_cache(PICTURE_BYTES, picture_bytes)
def open_picture(path: Path) -> Image.Image:
    """The picture in `path` as upright RGB, from a cache of `PICTURE_BYTES`. Read-only.

    EXIF orientation is applied, transparency becomes white, other modes become 8-bit RGB; see
    `eight_bit` for the brightness of deep greys.

    Raises:
        PictureError: the file is missing, damaged, not a picture, or has more than `MAX_PIXELS`.
    """
    with picture_file(path) as file:
        file.load()
        return _upright_rgb(file)  # stays valid when the file is closed


def upright_size(path: Path) -> Size:
    """(width, height) of the picture in `path` as from `open_picture`; reads only the header.

    Raises:
        PictureError: as `open_picture`, as far as the header shows.
    """
    with picture_file(path) as file:
        turned = (
            int(file.getexif().get(_ORIENTATION, 1)) >= 5
        )  # rows of the file are columns of the picture
        return (file.height, file.width) if turned else file.size


@contextmanager
def picture_file(path: Path, max_pixels: int | None = MAX_PIXELS) -> Iterator[Image.Image]:
    """The picture file, opened and not yet decoded; any failure becomes a PictureError that names
    it.
    """
    try:
        with path.open("rb") as content, opened(content, str(path)) as file:
            if max_pixels is not None and file.width * file.height > max_pixels:
                raise PictureError(
                    f"{path}: {file.width} x {file.height} pixels, more than "
                    f"{max_pixels:,}; is this a picture?"
                )
            yield file
    except FileNotFoundError:
        raise MissingPicture(f"{path}: no such picture") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, TypeError) as error:
        if isinstance(error, LfpcError):
            raise
        raise PictureError(f"{path}: not a readable picture ({error})") from error


def _upright_rgb(picture: Image.Image) -> Image.Image:
    """`picture` as upright RGB, uncopied if it already is: large copies are slow."""
    ImageOps.exif_transpose(picture, in_place=True)
    picture = eight_bit(picture)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert(
            "RGB"
        )
    return picture if picture.mode == "RGB" else picture.convert("RGB")


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


def global_view(picture: Image.Image, budget: int, *, factor: int = 28, fast: bool = False) -> View:
    """The whole picture at no more than `budget` visual tokens (never enlarged beyond rounding).

    Args:
        picture: the original.
        budget: maximum visual tokens.
        factor: side of a visual token in pixels.
        fast: shrink by block averages before the bicubic filter (see `FAST_GAP`): faster, with
            slightly different pixels.
    """
    size = shown_size(picture.size, max_tokens=budget, factor=factor)
    if size == picture.size:
        return View(picture, WHOLE, picture.size)
    image = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=FAST_GAP if fast else None)
    return View(image, WHOLE, picture.size)


def crop_view(picture: Image.Image, box: Box, rules: CropRules) -> View:
    """`box` cut from the original picture, resized to the token range of `rules`. Slivers are
    widened to the aspect limit; a `ToolBox` is cut as it says.
    """
    if isinstance(box, ToolBox) and box.cut is not None:
        return _tool_view(picture, box, box.cut, rules)
    left, top, right, bottom = box.to_pixels(picture.size)
    least = ceil(max(right - left, bottom - top) / MAX_ASPECT)
    right = max(right, left + least)
    bottom = max(bottom, top + least)
    left = left - max(0, right - picture.width)
    top = top - max(0, bottom - picture.height)
    cut = (max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height))
    cut_size = cut[2] - cut[0], cut[3] - cut[1]
    size = shown_size(
        cut_size, min_tokens=rules.min_tokens, max_tokens=rules.max_tokens, factor=rules.factor
    )
    return View(picture.resize(size, Image.Resampling.BICUBIC, box=cut), box, picture.size, cut)


def _tool_view(picture: Image.Image, box: ToolBox, cut: Corners, rules: CropRules) -> View:
    size = resized_size(
        box.sides or (cut[2] - cut[0], cut[3] - cut[1]),
        min_tokens=rules.min_tokens,
        max_tokens=rules.max_tokens,
        factor=rules.factor,
    )
    inside = cut[0] >= 0 and cut[1] >= 0 and cut[2] <= picture.width and cut[3] <= picture.height
    if inside and (cut[2] - cut[0]) * (cut[3] - cut[1]) > LARGEST_COPY:
        image = picture.resize(size, Image.Resampling.BICUBIC, box=cut)
    else:
        # cut first: a filter over the whole picture takes in pixels beyond the cut
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = picture.crop(cut).resize(size, Image.Resampling.BICUBIC)
    return View(image, Box(*box.corners), picture.size, cut)


def png_bytes(view: View) -> bytes:
    """The view's pixels as a PNG file. Level 1 with run-length encoding: several times faster than
    the usual level 6 on photographs.
    """
    out = BytesIO()
    view.image.save(out, "PNG", compress_level=1, compress_type=zlib.Z_RLE, icc_profile=None)
    return out.getvalue()


def noise_view(view: View, seed: int) -> View:
    """Uniform random noise of the same size and region as `view`; the same seed gives the same
    noise.
    """
    width, height = view.size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return View(Image.fromarray(pixels), view.region, view.original)


def mean_view(view: View) -> View:
    """One colour, the mean of `view`, at its size and region."""
    return View(
        Image.new(
            "RGB", view.size, view.image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        ),
        view.region,
        view.original,
    )


def blurred_view(view: View, share: float = 0.1) -> View:
    """`view` under a Gaussian blur with a standard deviation of `share` of the longer side, which
    keeps colours and removes shapes and letters.
    """
    return View(
        view.image.filter(ImageFilter.GaussianBlur(share * max(view.size))),
        view.region,
        view.original,
    )
