"""Pictures that are sent in: what is taken, what is refused with which sentence, and what is
dropped."""

import io
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lfpc.errors import PictureError
from lfpc.images import open_picture
from lfpc.web.ask.store import FileStore
from lfpc.web.ask.uploads import Uploads, checked_ending


def encoded(kind="PNG", size=(40, 30), mode="RGB", **options):
    out = io.BytesIO()
    Image.effect_noise(size, 40).convert(mode).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("PNG", "RGBA"),
        ("PNG", "1"),
        ("JPEG", "CMYK"),
        ("WEBP", "RGB"),
        ("GIF", "P"),
        ("BMP", "L"),
        ("TIFF", "L"),
    ],
)
def test_usual_pictures_are_kept_and_open(tmp_path, kind, mode):
    uploads = Uploads(tmp_path)
    name = uploads.add(encoded(kind, mode=mode))
    assert open_picture(uploads.find(name)).size == (40, 30)
    assert uploads.add(encoded("PNG")) != name


def test_the_same_file_is_kept_once(tmp_path):
    uploads = Uploads(tmp_path)
    data = encoded()
    assert uploads.add(data) == uploads.add(data)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a picture in one of the formats JPEG, PNG, WEBP, GIF, BMP, TIFF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (encoded(size=(900, 2)), "900 x 2 pixels; the longer side is at most 200 times"),
        (encoded()[:300], "the picture is broken: its file is cut off or damaged"),
        (encoded("JPEG", size=(300, 300))[:2000], "the picture is broken"),
    ],
)
def test_what_cannot_be_opened_is_refused_in_one_sentence_and_not_kept(tmp_path, data, sentence):
    with pytest.raises(PictureError, match=sentence) as caught:
        Uploads(tmp_path).add(data)
    assert str(tmp_path) not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 1,200 are an error to Pillow
    with pytest.raises(PictureError, match="40 x 30 pixels; the maximum is 1,000"):
        checked_ending(encoded(), most_pixels=1000)


@given(
    st.binary(max_size=300),
    st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]),
    st.integers(0, 200),
)
def test_whatever_bytes_are_sent_are_a_picture_or_a_picture_error(
    tmp_path_factory, junk, kind, place
):
    data = bytearray(encoded(kind, size=(9, 9)))
    data[place : place + len(junk)] = junk
    uploads = Uploads(tmp_path_factory.mktemp("uploads"), most_pixels=10_000)
    with suppress(PictureError):
        assert uploads.find(uploads.add(bytes(data))).is_file()


def test_the_longest_unused_file_is_dropped_first(tmp_path):
    store = FileStore(tmp_path / "store", 10)
    first = store.put(b"1111", ".txt")
    second = store.put(b"2222", ".txt")
    assert store.find(first)
    third = store.put(b"3333", ".txt")
    assert store.find(second) is None
    assert [store.find(name).read_bytes() for name in (first, third)] == [b"1111", b"3333"]
    assert len(list(store.folder.iterdir())) == 2


def test_a_file_larger_than_the_store_stays_until_the_next_comes(tmp_path):
    store = FileStore(tmp_path / "store", 3)
    large = store.put(b"1111", "")
    assert store.find(large)
    store.put(b"2", "")
    assert store.find(large) is None


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "."])
def test_only_names_that_were_given_are_found(tmp_path, name):
    (tmp_path / "secret").write_text("secret")
    assert FileStore(tmp_path / "store", 10).find(name) is None
    with pytest.raises(PictureError, match="no longer stored; send it again"):
        Uploads(tmp_path / "uploads").find(name)
