import ast
import importlib
import pkgutil
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

import lfpc
from lfpc.boxes import WHOLE, Box, Size
from lfpc.errors import ConfigError, PictureError
from lfpc.images import (
    MAX_ASPECT,
    CropRules,
    ToolBox,
    View,
    check_budget,
    crop_view,
    global_view,
    noise_view,
    open_picture,
    png_bytes,
    shown_size,
    smart_resize,
    visual_tokens,
)

sizes = st.tuples(st.integers(1, 9000), st.integers(1, 9000)).filter(
    lambda size: max(size) <= MAX_ASPECT * min(size)
)
factors = st.sampled_from([28, 32])


def test_smart_resize_by_hand() -> None:
    # 1000 x 500 at 64 tokens: beta = sqrt(1000 * 500 / (64 * 784)) = 3.1567; 316.8 -> 11 * 28 =
    # 308, 158.4 -> 5 * 28 = 140
    assert smart_resize((1000, 500), min_tokens=1, max_tokens=64) == (308, 140)
    # 30 x 30 rounds to one token, below 16: beta = sqrt(16 * 784 / 900) = 3.733; 112.0 -> 4 * 28
    assert smart_resize((30, 30), min_tokens=16, max_tokens=64) == (112, 112)
    # inside the bounds: 100 -> 3.57 -> 4 * 28, 70 -> 2.5 -> even 2 * 28
    assert smart_resize((100, 70), min_tokens=1, max_tokens=64) == (112, 56)


@given(sizes, factors, st.integers(1, 64), st.integers(1, 4096))
def test_sides_are_multiples_and_a_result_within_bounds_is_a_fixed_point(
    size: Size, factor: int, low: int, high: int
) -> None:
    bounds = {"min_tokens": min(low, high), "max_tokens": high, "factor": factor}
    shown = smart_resize(size, **bounds)
    assert shown[0] % factor == shown[1] % factor == 0
    if bounds["min_tokens"] <= visual_tokens(shown, factor) <= high and max(
        shown
    ) <= MAX_ASPECT * min(shown):
        assert smart_resize(shown, **bounds) == shown


@given(sizes, factors, st.integers(1, 16384))
def test_a_budget_holds_unless_the_picture_is_narrower_than_the_budget(
    size: Size, factor: int, budget: int
) -> None:
    if max(size) <= budget * min(size):
        assert (
            visual_tokens(
                smart_resize(size, min_tokens=1, max_tokens=budget, factor=factor), factor
            )
            <= budget
        )


@pytest.mark.slow
@pytest.mark.parametrize("factor", [28, 32])
def test_smart_resize_agrees_with_transformers(factor: int) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as theirs

    rng = np.random.default_rng(0)
    for width, height in rng.integers(
        factor, 9000, (3000, 2)
    ).tolist():  # below half a token theirs rounds a side to 0
        if max(width, height) > MAX_ASPECT * min(width, height):
            continue
        low, high = sorted(rng.integers(1, 2000, 2).tolist())
        h, w = theirs(
            height, width, factor=factor, min_pixels=low * factor**2, max_pixels=high * factor**2
        )
        assert smart_resize((width, height), min_tokens=low, max_tokens=high, factor=factor) == (
            w,
            h,
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "low", "high"), [(28, 3136, 12_845_056), (32, 65_536, 16_777_216)]
)
def test_the_published_processors_show_tiny_views_as_they_are(
    factor: int, low: int, high: int
) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    theirs = Qwen2VLImageProcessorPil(
        patch_size=factor // 2, size={"shortest_edge": low, "longest_edge": high}
    )
    picture = Image.new("RGB", (1200, 900))
    rules = CropRules(factor=factor, min_tokens=1, max_tokens=low // factor**2 + 5)
    rng = np.random.default_rng(0)
    sides = [
        (1, 1),
        (84, 28),
        (28, 28),
        (30, 90),
        (56, 20),
        (1200, 7),
        *rng.integers(1, 120, (40, 2)),
    ]
    for width, height in sides:
        view = crop_view(picture, Box(0, 0, width / 1200, height / 900), rules)
        grid = theirs([view.image], return_tensors="np")["image_grid_thw"][0].tolist()
        assert grid == [1, *(2 * side // factor for side in view.size[::-1])], (width, height)


def test_a_picture_narrower_than_one_to_200_is_refused() -> None:
    with pytest.raises(PictureError, match="narrower than 1 : 200"):
        smart_resize((2010, 10), min_tokens=1, max_tokens=64)


def test_a_narrow_picture_keeps_to_its_budget_by_hand() -> None:
    # one token wide and 200 long; 25 tokens are 700 pixels
    assert shown_size((28, 5600), max_tokens=25) == (28, 700)
    assert shown_size((5600, 28), max_tokens=25) == (700, 28)
    # smaller than a token: 3 x 200 at 4
    assert shown_size((3, 200), max_tokens=4) == (28, 112)
    # wide enough: as the processor
    assert shown_size((1000, 500), max_tokens=64) == (308, 140)


@given(sizes, factors, st.integers(1, 16384))
def test_every_first_view_keeps_to_its_budget_and_is_not_resized_again(
    size: Size, factor: int, budget: int
) -> None:
    least = {28: 4, 32: 64}[factor]  # of the families' processors: 3,136 and 65,536 pixels
    budget = max(least, budget)
    shown = shown_size(size, max_tokens=budget, factor=factor)
    assert least <= visual_tokens(shown, factor) <= budget
    if max(shown) <= MAX_ASPECT * min(shown):
        assert smart_resize(shown, min_tokens=least, max_tokens=budget, factor=factor) == shown


def test_a_small_view_of_qwen3_vl_has_the_64_tokens_of_its_processor_by_hand() -> None:
    # 300 x 200 is 9 x 6 = 54 tokens; sqrt(65536 / 60000) = 1.045: 313.5 x 209.0, up to 10 x 7
    assert shown_size((300, 200), max_tokens=1024, factor=32) == (320, 224)
    # 4000 x 3000 at 64 tokens: rounding down gives 9 x 6 = 54; 8 x 8 is nearest to 4:3
    assert shown_size((4000, 3000), max_tokens=64, factor=32) == (256, 256)
    assert shown_size((4000, 3000), max_tokens=70, factor=32) == (320, 224)
    # a crop may be allowed fewer tokens than the processor shows
    assert shown_size((32, 32), min_tokens=16, max_tokens=1024, factor=32) == (256, 256)


def test_a_budget_below_the_processors_minimum_is_named() -> None:
    with pytest.raises(ConfigError, match=r"`crop.max_tokens` must be at least 64 .*got 63"):
        CropRules(factor=32, min_tokens=1, max_tokens=63)
    check_budget(64, 32, "--budget")
    check_budget(4, 28, "--budget")
    with pytest.raises(ConfigError, match="--budget must be at least 4 visual tokens, got 3"):
        check_budget(3, 28, "--budget")
    with pytest.raises(ConfigError, match="--budget must be at least 64 visual tokens, got 25"):
        check_budget(25, 32, "--budget")


@given(sizes, st.integers(1, 16), st.integers(0, 100))
def test_every_crop_keeps_to_its_limit(size: Size, least: int, more: int) -> None:
    # enlarging rounds up: 2 x 2 tokens hold at least 3, 4 x 4 at least 10
    most = 2 * least + 3 + more
    shown = shown_size(size, min_tokens=least, max_tokens=most)
    assert least <= visual_tokens(shown) <= most


def test_the_global_view_keeps_to_its_budget(picture: Callable[..., Path]) -> None:
    view = global_view(open_picture(picture(size=(1000, 500))), 64)
    assert view.size == (308, 140)
    assert view.region == WHOLE


def test_a_crop_shows_the_original_at_its_own_resolution(picture: Callable[..., Path]) -> None:
    original = open_picture(picture(size=(560, 560)))
    box = Box(0.5, 0.25, 0.75, 0.5)
    view = crop_view(original, box, CropRules(min_tokens=1))
    # 140 x 140 pixels = 5 x 5 tokens: nothing is resized, so every pixel is the original's
    assert view.region == box
    assert np.array_equal(np.asarray(view.image), np.asarray(original.crop((280, 140, 420, 280))))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-12, 1), st.floats(1e-12, 1))
def test_every_box_can_be_shown(x: float, y: float, width: float, height: float) -> None:
    x = min(x, 0.999)
    y = min(y, 0.999)
    box = Box(x, y, min(1.0, x + max(width, 1e-12)), min(1.0, y + max(height, 1e-12)))
    view = crop_view(Image.new("RGB", (600, 3)), box, CropRules(min_tokens=4, max_tokens=64))
    assert view.size[0] % 28 == view.size[1] % 28 == 0


def test_a_crop_names_the_pixels_that_were_cut(picture: Callable[..., Path]) -> None:
    original = open_picture(picture(size=(600, 300)))
    assert crop_view(original, Box(0.101, 0.2, 0.5, 0.5), CropRules()).cut == (
        60,
        60,
        300,
        150,
    )  # 60.6 rounded outwards
    assert crop_view(original, Box(0.0, 0.5, 1.0, 0.5001), CropRules()).cut == (
        0,
        150,
        600,
        153,
    )  # a sliver is widened to 1 : 200
    assert global_view(original, 64).cut is None


def test_a_picture_is_not_copied_where_nothing_has_to_change(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(
        tmp_path / "a.jpg", quality=90
    )
    with Image.open(tmp_path / "a.jpg") as theirs:
        assert open_picture(tmp_path / "a.jpg").tobytes() == theirs.convert("RGB").tobytes()


def test_png_bytes_are_lossless(picture: Callable[..., Path]) -> None:
    view = global_view(open_picture(picture(size=(500, 400))), 64)
    with Image.open(BytesIO(png_bytes(view))) as back:
        assert (back.format, back.mode, back.tobytes()) == ("PNG", "RGB", view.image.tobytes())


def test_the_fast_view_has_the_same_size_and_nearly_the_same_pixels(
    picture: Callable[..., Path],
) -> None:
    original = open_picture(picture(size=(3000, 2000)))
    exact = global_view(original, 64)
    fast = global_view(original, 64, fast=True)
    assert fast.size == exact.size
    difference = np.asarray(fast.image, float) - np.asarray(exact.image, float)
    assert (
        np.abs(difference).max() <= 2
    )  # a smooth picture; what a detailed one loses, `python -m bench large_picture_fast` says


def test_noise_has_the_size_and_region_of_what_it_replaces_and_follows_its_seed(
    picture: Callable[..., Path],
) -> None:
    view = crop_view(open_picture(picture()), Box(0.1, 0.1, 0.4, 0.4), CropRules())
    noise = noise_view(view, 7)
    assert (noise.size, noise.region) == (view.size, view.region)
    assert noise.image.tobytes() == noise_view(view, 7).image.tobytes()
    assert noise.image.tobytes() != noise_view(view, 8).image.tobytes()


def test_a_view_knows_the_size_of_its_original(picture: Callable[..., Path]) -> None:
    original = open_picture(picture(size=(1000, 500)))
    crop = crop_view(original, Box(0.1, 0.1, 0.4, 0.4), CropRules())
    for view in (global_view(original, 64), crop, noise_view(crop, 7)):
        assert view.original_size == (1000, 500)
    # where it does not, at the scale of what is shown: 50 pixels are a quarter of 200
    assert View(Image.new("RGB", (50, 50)), Box(0, 0, 0.25, 0.5)).original_size == (200, 100)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20), "blue")
    picture.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to see it upright: the left half goes to the top
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = open_picture(tmp_path / "turned.png")
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 5)) == (255, 0, 0)
    assert upright.getpixel((10, 35)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        (
            "RGBA",
            (255, 0, 0, 0),
            "clear.png",
            (255, 255, 255),
        ),  # fully transparent red on white is white
        ("RGBA", (0, 0, 0, 51), "faint.png", (204, 204, 204)),  # 255 * (1 - 51/255)
        ("LA", (0, 255), "grey_alpha.png", (0, 0, 0)),
        ("L", 77, "grey.png", (77, 77, 77)),
        ("1", 1, "bits.png", (255, 255, 255)),
        ("I;16", 32896, "deep.png", (128, 128, 128)),  # 32896 / 65535 * 255 = 128.0
        ("I;16", 32896, "deep.tiff", (128, 128, 128)),
        ("I;16", 2048, "camera.png", (128, 128, 128)),  # 12 bits: 2048 / 4095 * 255 = 127.5
        ("I;16", 512, "scan.png", (128, 128, 128)),  # 10 bits: 512 / 1023 * 255 = 127.6
        ("I;16", 77, "shallow.png", (77, 77, 77)),  # 8 bits
        ("I", 2**24, "whole.tiff", (255, 255, 255)),  # 32 bits: the highest is white
        ("F", 0.5, "unit.tiff", (128, 128, 128)),  # floats from 0 to 1
        ("F", 77.0, "float.tiff", (77, 77, 77)),  # floats up to 255 are taken as they are
        ("F", float("nan"), "none.tiff", (0, 0, 0)),
        ("CMYK", (0, 0, 0, 0), "print.tiff", (255, 255, 255)),
        ("YCbCr", (128, 128, 128), "video.tiff", (128, 128, 128)),
    ],
)
def test_every_mode_becomes_8_bit_rgb(
    tmp_path: Path, mode: str, colour: object, name: str, expected: tuple[int, int, int]
) -> None:
    Image.new(mode, (30, 30), colour).save(tmp_path / name)  # pyright: ignore[reportArgumentType] - colours of all modes
    opened = open_picture(tmp_path / name)
    assert opened.mode == "RGB"
    assert opened.getpixel((3, 3)) == expected


def test_lab_becomes_rgb_within_rounding(tmp_path: Path) -> None:
    # half lightness without colour is sRGB 119: L* = 50 is 0.184 of white
    Image.new("LAB", (30, 30), (128, 128, 128)).save(tmp_path / "lab.tiff")
    assert np.asarray(open_picture(tmp_path / "lab.tiff")) == pytest.approx(119, abs=2)


@pytest.mark.parametrize(
    ("highest", "kind", "lowest"),
    [
        (1.0, np.float32, 0),
        (1000.0, np.float32, 0),
        (4095, np.uint16, 0),
        (65535, np.uint16, 0),
        (10**7, np.int32, 0),
        (1023, np.int32, -3072),
    ],
)
def test_a_gradient_of_any_depth_keeps_its_brightness(
    tmp_path: Path, highest: float, kind: type, lowest: float
) -> None:
    levels = np.linspace(lowest, highest, 160).astype(kind)[None].repeat(20, axis=0)
    Image.fromarray(levels).save(tmp_path / "deep.tiff")
    shown = np.asarray(open_picture(tmp_path / "deep.tiff"))
    assert (shown.min(), shown.max()) == (0, 255)
    assert shown.mean() == pytest.approx(127.5, abs=1)


def test_a_palette_with_a_transparent_colour_becomes_white(tmp_path: Path) -> None:
    picture = Image.new("P", (10, 10), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "palette.png", transparency=1)
    opened = open_picture(tmp_path / "palette.png")
    assert opened.getpixel((0, 0)) == (255, 0, 0)
    assert opened.getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_a_truncated_picture_is_one_picture_error_with_its_name(
    tmp_path: Path, suffix: str, share: float
) -> None:
    whole = tmp_path / f"whole.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    data = whole.read_bytes()
    broken = tmp_path / f"broken.{suffix}"
    broken.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PictureError, match=r"broken\."):
        open_picture(broken)


def test_missing_files_folders_and_texts_are_picture_errors(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    for path, says in (
        (tmp_path / "none.png", "no such picture"),
        (tmp_path, "not a readable"),
        (tmp_path / "text.png", "not a readable"),
    ):
        with pytest.raises(PictureError, match=says):
            open_picture(path)


def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding(tmp_path: Path) -> None:
    # a BMP header of 40,000 x 40,000 pixels with no pixels behind it
    header = (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    (tmp_path / "bomb.bmp").write_bytes(header)
    with pytest.raises(PictureError, match="40000 x 40000 pixels, more than"):
        open_picture(tmp_path / "bomb.bmp")


def test_a_picture_is_decoded_once_while_it_is_remembered(picture: Callable[..., Path]) -> None:
    path = picture()
    assert open_picture(path) is open_picture(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("large.png", {}),
        ("large.jpg", {}),
        ("large.mpo", {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]}),
        ("large.gif", {}),
        ("large.bmp", {}),
        ("large.jp2", {}),
        ("large.tif", {}),
        ("packed.tif", {"compression": "tiff_lzw"}),
    ],
)
def test_only_our_own_limit_on_pixels_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, object]
) -> None:
    Image.new("RGB", (400, 300), "red").save(tmp_path / name, **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 120,000 are an error, not a warning
    red, _, blue = open_picture(tmp_path / name).getpixel((399, 299))
    assert red > 250 > 5 > blue


def test_a_webp_file_that_its_reader_refuses_is_one_picture_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "large.webp")
    assert open_picture(tmp_path / "large.webp").size == (40, 30)
    open_picture.cache_clear()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(PictureError, match=r"large\.webp: .*exceeds limit of 200 pixels"):
        open_picture(tmp_path / "large.webp")


def test_one_module_opens_pictures_and_none_under_pillows_own_limit() -> None:
    """Pillow's openers, and its transposition that writes EXIF data, by module."""
    names = {"open", "OPEN", "frombytes", "exif_transpose"}
    found = {
        f"{file.name}: {ast.unparse(node)}"
        for file in Path(lfpc.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in names
        and ast.unparse(node.value) in ("Image", "PIL.Image", "ImageOps")
    }
    assert found == {"picture_files.py: Image.OPEN"}


@pytest.mark.slow
def test_importing_every_module_leaves_pillows_settings_alone() -> None:
    found = list(pkgutil.walk_packages(lfpc.__path__, "lfpc.", onerror=lambda _: None))
    assert len(found) > 100
    for module in found:
        if (
            not module.name.startswith("lfpc.training.verl.inside")
            and module.name != "lfpc.__main__"
        ):
            importlib.import_module(module.name)
    quarter = 256 * 1024 * 1024 // 3  # Pillow's own: a quarter of a GB in three channels
    assert (quarter, False) == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_a_tools_box_is_cut_before_it_is_resized_and_is_black_beyond_the_edges() -> None:
    stripes = Image.new("RGB", (200, 100), "white")
    stripes.paste("red", (0, 0, 100, 100))
    left = ToolBox(0, 0, 0.5, 1, cut=(0, 0, 100, 100))
    view = crop_view(stripes, left, CropRules(min_tokens=64))
    assert view.size == (224, 224)
    assert view.image.getcolors() == [(224 * 224, (255, 0, 0))]  # no white from the next column
    beyond = ToolBox(0.5, 0, 1, 1, cut=(100, 0, 300, 100), sides=(56, 28))
    view = crop_view(stripes, beyond, CropRules(min_tokens=2))
    assert (view.size, view.cut, view.region) == ((56, 28), (100, 0, 300, 100), Box(0.5, 0, 1, 1))
    assert view.image.getpixel((55, 14)) == (0, 0, 0)
    assert crop_view(stripes, ToolBox(0, 0, 0.5, 1), CropRules()).cut == (0, 0, 100, 100)


def test_a_large_tools_box_inside_the_picture_is_not_copied(monkeypatch) -> None:
    monkeypatch.setattr("lfpc.images.LARGEST_COPY", 100)
    monkeypatch.setattr(Image.Image, "crop", None)
    box = ToolBox(0, 0, 0.5, 1, cut=(0, 0, 100, 100))
    assert crop_view(Image.new("RGB", (200, 100)), box, CropRules()).cut == box.cut
