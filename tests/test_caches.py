import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lfpc.caches import byte_cache


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
