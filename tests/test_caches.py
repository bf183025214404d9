import os
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest
from PIL import Image

from lfpc.caches import byte_cache
from lfpc.evaluation.opened import first_view
from lfpc.images import open_picture
from lfpc.samples import Sample
from lfpc.web.annotate.tiles import tile
from lfpc.web.ask.page import browsable


def counting(max_bytes: int):
    """A function that repeats a letter, a byte each, with the calls that were really made."""
    made: list[tuple[str, int]] = []

    @byte_cache(max_bytes, len)
    def repeat(letter: str, times: int) -> str:
        made.append((letter, times))
        return letter * times

    return repeat, made


def test_what_was_used_last_stays_within_the_bytes():
    repeat, made = counting(10)
    for letter in "abacab":  # 4 bytes each: two fit; c drives b out, which then drives c out
        assert repeat(letter, 4) == letter * 4
    assert made == [("a", 4), ("b", 4), ("c", 4), ("b", 4)]


def test_a_value_larger_than_the_cache_is_given_but_drives_nothing_out():
    repeat, made = counting(10)
    for letter, times in [("a", 4), ("x", 11), ("a", 4), ("x", 11)]:
        assert len(repeat(letter, times)) == times
    assert made == [("a", 4), ("x", 11), ("x", 11)]


def test_the_function_itself_can_be_called_past_the_cache():
    repeat, made = counting(10)
    assert [repeat("a", 2), repeat.__wrapped__("a", 2), repeat("a", 2)] == ["aa"] * 3
    assert made == [("a", 2)] * 2


def test_a_cleared_cache_makes_again():
    repeat, made = counting(10)
    repeat("a", 1)
    repeat.cache_clear()
    repeat("a", 1)
    assert len(made) == 2


def test_a_failure_is_raised_and_not_remembered():
    outcomes = iter([ValueError("first"), "second"])

    @byte_cache(10, len)
    def make() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.raises(ValueError, match="first"):
        make()
    assert make() == "second"


def test_threads_that_want_the_same_value_share_one_making():
    started = threading.Event()
    go = threading.Event()
    made = []

    @byte_cache(10, len)
    def make(name: str) -> str:
        made.append(name)
        started.set()
        assert go.wait(10)
        return name

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(make, "a")
        assert started.wait(10)
        others = [pool.submit(make, "a") for _ in range(3)]
        go.set()
        values = [future.result() for future in (first, *others)]
    assert made == ["a"]
    assert all(value is values[0] for value in values)


def shown_first(path):
    return first_view(Sample(id="s", image=path, question="?", answer="K"), 16).image


READERS = {
    "original": open_picture,
    "first view": shown_first,
    "tile": lambda path: Image.open(BytesIO(tile(path, 0, 0, 0))),
    "smaller tile": lambda path: Image.open(BytesIO(tile(path, 1, 0, 0))),
    "browsable": lambda path: Image.open(BytesIO(browsable(path))),
}


@pytest.mark.parametrize("name", READERS)
def test_a_replaced_picture_is_read_again_by_everything_that_remembers_pictures(tmp_path, name):
    path = tmp_path / "picture.png"

    def replaced_by(colour):
        Image.new("RGB", (1120, 560), colour).save(path, compress_level=0)
        os.utime(path, (1, 1))  # as a copy that keeps the time; the size is the same too
        return READERS[name](path).getpixel((0, 0))

    red = replaced_by("red")
    blue = replaced_by("blue")
    assert red[0] > 250 > 5 > red[2]
    assert blue[2] > 250 > 5 > blue[0]


def test_a_path_is_one_key_while_its_file_stays(tmp_path):
    made = []

    @byte_cache(10, len)
    def read(path, *, times=1):
        made.append(path)
        return path.read_text() * times

    file = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        read(file)
    file.write_text("a")
    assert [read(file), read(file), read(file, times=2), read(file, times=2)] == ["a"] * 2 + [
        "aa"
    ] * 2
    assert len(made) == 3
