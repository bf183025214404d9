"""Pictures and views.

A `View` is pixels plus the region of the original they depict: the global picture depicts the
whole, a crop its box, a noise probe the box that it replaces. Budgets are visual tokens; one token
is `factor` x `factor` pixels.
"""

import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from math import ceil, floor, log, sqrt
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from lfpc.boxes import WHOLE, Box, Corners, Size
from lfpc.caches import byte_cache
from lfpc.errors import ConfigError, PictureError
from lfpc.picture_files import frame_of, picture_file, plain_bytes, upright_rgb

LEAST_TOKENS = {28: 4, 32: 64}
"""Fewest visual tokens of a picture, by the side of a token in pixels: the published processors
enlarge smaller pictures, Qwen2.5-VL's to 3,136 pixels and Qwen3-VL's to 65,536."""
MAX_ASPECT = 200
"""Maximum aspect ratio of Qwen's processors."""
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
                f"`crop.min_tokens` must be at least 1, and at most `crop.max_tokens`; got "
                f"{self.min_tokens} and {self.max_tokens}"
            )
        check_budget(self.max_tokens, self.factor, "`crop.max_tokens`")


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
            f"{name} must be at least {least} visual tokens, got {budget}: the model's processor "
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

    See `upright_rgb` for what becomes of colours.

    Raises:
        PictureError: the file is missing, damaged, not a picture, or has more than `MAX_PIXELS`.
    """
    with picture_file(path) as file:
        return upright_rgb(file)


def upright_size(path: Path) -> Size:
    """(width, height) of the picture in `path` as from `open_picture`; reads no more than the
    header, if the format allows.

    Raises:
        PictureError: as `open_picture`, as far as the header shows.
    """
    return frame_of(path).size


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


def bytes_for_others(path: Path) -> bytes:
    """A picture file that every reader shows as `open_picture` does: its own bytes, or a PNG file
    for one that is turned by its EXIF data, transparent, or not in 8-bit RGB or grey.

    Raises:
        PictureError: see `open_picture`.
    """
    return plain_bytes(path) or png_bytes(View(open_picture(path), WHOLE))


def noise_view(view: View, seed: int) -> View:
    """Uniform random noise of the same size and region as `view`; the same seed gives the same
    noise.
    """
    width, height = view.size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return View(Image.fromarray(pixels), view.region, view.original)


def noisy_view(view: View, seed: int, deviation: float = 128.0) -> View:
    """`view` plus Gaussian noise, clipped to [0, 255]; the same seed gives the same noise.

    The standard deviation, half of the range by default, leaves a letter of a few pixels
    unreadable.
    """
    width, height = view.size
    noise = np.random.default_rng(seed).normal(0, deviation, (height, width, 3))
    pixels = np.clip(np.asarray(view.image, np.float32) + noise, 0, 255).astype(np.uint8)
    return View(Image.fromarray(pixels), view.region, view.original)


def one_colour(view: View, colour: tuple[int, int, int] | None = None) -> View:
    """`colour` (RGB), at the size and region of `view`; None: the mean of `view`."""
    shown = colour or view.image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    return View(Image.new("RGB", view.size, shown), view.region, view.original)


def blurred_view(view: View, share: float = 0.1) -> View:
    """`view` under a Gaussian blur with a standard deviation of `share` of the longer side, which
    keeps colours and removes shapes and letters.
    """
    return View(
        view.image.filter(ImageFilter.GaussianBlur(share * max(view.size))),
        view.region,
        view.original,
    )
