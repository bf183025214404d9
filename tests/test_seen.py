"""A set of texts outside memory."""

import sqlite3
import tracemalloc

import pytest

from lfpc.errors import DiskError
from lfpc.storage.seen import Seen, seen_texts


def test_texts_are_new_once_whatever_they_hold():
    with seen_texts() as seen:
        for text in ("", "a", "A", "a\0", "\ud800", "\\ud800", "ä", "a" * 10_000):
            assert text not in seen
            assert seen.add(text)
            assert not seen.add(text)
            assert text in seen
    with seen_texts() as other:
        assert "a" not in other


def test_it_does_not_grow_in_memory():
    tracemalloc.start()
    with seen_texts() as seen:
        assert all(seen.add(f"sample {n}") for n in range(5_000))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_full_disk_is_a_sentence():
    rows = sqlite3.connect("")
    rows.close()
    with pytest.raises(DiskError, match="temporary folder is not usable"):
        Seen(rows).add("a")
