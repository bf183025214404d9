from pathlib import Path

import pytest

from lfpc.errors import RunError
from lfpc.storage.journal import Journal


def test_of_two_rows_with_one_key_the_last_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    assert journal.by_key() == {}
    for key, said in (("a", "K"), ("b", "L"), ("a", "M")):
        journal.append(key, {"said": said})
    assert {key: row["said"] for key, row in journal.by_key().items()} == {"a": "M", "b": "L"}
    assert [row["said"] for row in journal.rows()] == ["K", "L", "M"]


def test_a_torn_last_line_is_skipped_and_cut_on_opening(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    journal.append("a", {"said": "K"})
    with journal.path.open("ab") as file:  # longer than one read, and not even text
        file.write(b'{"key": "b", "x": "' + b"\xc3" * 200_000)
    assert list(journal.by_key()) == ["a"]
    Journal.open(journal.path).append("b", {"said": "L"})
    assert list(journal.by_key()) == ["a", "b"]


def test_a_file_of_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"st')
    assert list(Journal.open(path).rows()) == []
    assert path.read_text() == ""


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "a"}\noops\n{"key": "b"}\n')
    with pytest.raises(RunError, match=r"answers\.jsonl:2: not a line of JSON"):
        Journal(path).by_key()


def test_a_lone_surrogate_is_kept_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    journal.append("a", {"text": "cut \ud83d here", "more": "é😀"})
    assert journal.path.read_bytes().isascii() is False
    assert journal.by_key()["a"] == {"key": "a", "text": "cut \ud83d here", "more": "é😀"}


def test_a_disk_that_refuses_is_one_sentence(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    journal.path.symlink_to("/dev/full")  # every write fails with "no space left"
    with pytest.raises(RunError, match=r"answers\.jsonl cannot be written or read: No space left"):
        journal.append("a", {})
