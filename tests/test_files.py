import os
import stat
from pathlib import Path
from typing import Any

import pytest

from lfpc.errors import RunError
from lfpc.storage.files import (
    atomic_file,
    atomic_folder,
    read_json,
    remove_drafts,
    write_json,
    write_text,
)


def refuse(*_: Any) -> None:
    raise OSError(28, os.strerror(28))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with atomic_file(path) as out:
        out.write("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert names(path.parent) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail_half_way() -> None:
        with atomic_file(path) as out:
            out.write("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace")])
def test_a_disk_that_refuses_is_one_sentence_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, step: str
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    monkeypatch.setattr(owner, step, refuse)
    with pytest.raises(RunError, match=r"a\.json cannot be written or read: No space left"):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}
    assert names(tmp_path) == ["a.json"]


def test_two_writers_of_one_file_have_drafts_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_file(path) as first:
        first.write("first")
        with atomic_file(path) as second:
            second.write("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_content_is_on_disk_before_its_name_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync = os.fsync
    replace = Path.replace

    def synced(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("sync folder" if folder else "sync file")
        sync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_text(tmp_path / "a.txt", "content")
    assert steps == ["sync file", "rename", "sync folder"]


def test_a_lone_surrogate_is_kept_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"text": "cut \ud83d here", "more": "é😀"})
    assert read_json(tmp_path / "a.json") == {"text": "cut \ud83d here", "more": "é😀"}


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RunError, match=r"a\.json is unreadable"):
        read_json(tmp_path / "a.json")
    with pytest.raises(RunError, match=r"none\.json is unreadable"):
        read_json(tmp_path / "none.json")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    with atomic_folder(folder) as draft:
        (draft / "a").write_text("old")

    def fail_half_way() -> None:
        with atomic_folder(folder) as draft:
            (draft / "a").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert (folder / "a").read_text() == "old"
    with atomic_folder(folder) as draft:
        (draft / "b").write_text("new")
    assert names(folder) == ["b"]
    assert names(tmp_path) == ["best"]


def test_drafts_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".best.0a1b2c3d4e5f.part").mkdir()
    (tmp_path / ".a.json.0a1b2c3d4e5f.part").write_text("{")
    (tmp_path / "a.part").write_text("a person's own")
    remove_drafts(tmp_path)
    assert names(tmp_path) == ["a.part"]
