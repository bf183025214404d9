"""Picture files that lie, hang or are damaged: what is used, what is refused, where boxes are."""

import os
import socket
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lfpc.data.hashes import picture_hash
from lfpc.errors import HugePicture, MissingPicture, PictureError
from lfpc.images import open_picture, upright_size
from lfpc.picture_files import frame_of, picture_file, plain_bytes
from lfpc.published.pictures import pixel_boxes
from lfpc.published.soundness import sound_picture

RED = (10, 20, 60, 50)
"""A red rectangle on the stored pixels."""


def photograph(size: tuple[int, int] = (200, 120)) -> Image.Image:
    picture = Image.new("RGB", size, (20, 20, 200))
    picture.paste((250, 10, 10), RED)
    return picture


def jpeg(exif: bytes = b"", size: tuple[int, int] = (200, 120)) -> bytes:
    out = BytesIO()
    photograph(size).save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF data of (tag, type, count, value or offset) entries, followed by eight bytes at the end
    for a rational."""
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries))
    rows = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return head + rows + struct.pack("<I", 0) + struct.pack("<iI", -1, 0)


TURNED = (0x0112, 3, 1, struct.pack("<H", 6))


def impossible_rational() -> bytes:
    # XResolution as a signed rational -1 / 0, behind the two entries: 8 + 2 + 2 * 12 + 4
    return exif(TURNED, (0x011A, 10, 1, struct.pack("<I", 38)))


@pytest.mark.parametrize("ending", ["jpg", "tif", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 0, 9])
def test_size_pixels_and_boxes_agree_for_every_orientation(
    tmp_path: Path, orientation: int, ending: str
) -> None:
    file = tmp_path / f"a.{ending}"
    tags = Image.Exif()
    tags[0x0112] = orientation
    photograph().save(file, exif=tags)
    shown = open_picture(file)
    assert upright_size(file) == shown.size == ((120, 200) if 5 <= orientation <= 8 else (200, 120))
    pixels = np.asarray(shown).astype(int)
    ys, xs = np.nonzero((pixels[..., 0] > 150) & (pixels[..., 1] < 90))
    seen = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    ((box,),) = pixel_boxes(list(RED), file)
    assert box.to_pixels(shown.size) == pytest.approx(seen, abs=2)
    assert (plain_bytes(file) is None) == (2 <= orientation <= 8)


def test_an_impossible_rational_in_exif_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "phone.jpg"
    file.write_bytes(jpeg(impossible_rational()))
    with pytest.raises(struct.error), Image.open(file) as theirs:
        theirs.getexif().tobytes()  # what a reader that writes EXIF data runs into
    assert open_picture(file).size == upright_size(file) == (120, 200)
    assert sound_picture(file) == "jpeg"
    assert picture_hash(file) is not None


@pytest.mark.parametrize("entry", [(0x0112, 2, 2, b"6\0"), (0x0112, 7, 4, b"\6")])
def test_an_orientation_that_is_no_number_is_none(
    tmp_path: Path, entry: tuple[int, int, int, bytes]
) -> None:
    file = tmp_path / "text.jpg"
    file.write_bytes(jpeg(exif(entry)))
    assert open_picture(file).size == upright_size(file) == (200, 120)


def test_a_picture_is_known_by_its_content_and_postscript_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    file = tmp_path / "a.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n")
    with pytest.raises(PictureError, match=r"a\.jpg: not a readable picture \(none of JPEG, PNG"):
        open_picture(file)
    assert not started.exists()
    photograph().save(tmp_path / "really.png", "JPEG")
    assert sound_picture(tmp_path / "really.png") == "jpeg"


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "a.jpg"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(place))
    for use in (open_picture, upright_size, sound_picture, picture_hash, plain_bytes):
        with pytest.raises(PictureError, match=rf"a\.jpg: not a readable picture \(a .*{kind}"):
            use(place)


def test_a_file_in_place_of_a_folder_is_a_missing_picture(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingPicture, match="no such picture"):
        open_picture(tmp_path / "file" / "a.jpg")
    with pytest.raises(PictureError, match="null byte"):
        open_picture(tmp_path / "a\0b.jpg")


@pytest.mark.parametrize("kind", ["second half", "all after the header", "padding", "no end"])
def test_a_jpeg_file_that_ends_in_zeros_is_broken_unless_its_end_marker_is_there(
    tmp_path: Path, kind: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(noise).save(out, "JPEG")
    data = out.getvalue()
    file = tmp_path / "a.jpg"
    if kind == "padding":  # some cameras fill up the last block of a card
        file.write_bytes(data + bytes(200_000))
        assert sound_picture(file) == "jpeg"
    elif kind == "no end":
        file.write_bytes(data + b"SEFT" + bytes(60))
        assert sound_picture(file) == "jpeg"
    else:
        kept = len(data) // 2 if kind == "second half" else 700
        file.write_bytes(data[:kept] + bytes(len(data) - kept))
        for use in (open_picture, upright_size, sound_picture, picture_hash):
            with pytest.raises(PictureError, match=r"the last [\d,]+ of its [\d,]+ bytes are zero"):
                use(file)


@pytest.mark.parametrize(
    "error",
    [
        struct.error("argument out of range"),
        RuntimeError("Failed to decode frame"),
        NotImplementedError("Unimplemented pixel format"),
        AttributeError("fp"),
        ZeroDivisionError("division by zero"),
        MemoryError(),
        EOFError(),
    ],
)
def test_whatever_a_reader_raises_is_one_picture_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    file = tmp_path / "a.png"
    photograph().save(file)

    def fails(self: object) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fails)
    for use in (open_picture, sound_picture, picture_hash):
        with pytest.raises(PictureError, match=r"a\.png: not a readable picture \(.+\)"):
            use(file)


def test_a_frame_holds_the_stored_size(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg(exif(TURNED)))
    assert (frame_of(file).stored, frame_of(file).size) == ((200, 120), (120, 200))


def test_bytes_open_as_files_do() -> None:
    with picture_file(jpeg()) as file:
        assert file.size == (200, 120)
    with (
        pytest.raises(PictureError, match="4 bytes that are not a readable picture"),
        picture_file(b"junk"),
    ):
        pass
    with (
        pytest.raises(HugePicture, match="200 x 120 pixels, more than 9"),
        picture_file(jpeg(), max_pixels=9),
    ):
        pass
