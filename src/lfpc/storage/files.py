"""Atomic writes of files and folders, and locks of folders.

A draft beside the file is written, flushed to disk and renamed: a reader sees the old file or the
new one, even after a power failure. Every draft has a unique name that ends in `.part`. Appended
lines are in `journal`.
"""

import json
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from threading import RLock
from typing import IO, Any, Literal, Self

from lfpc.errors import DiskError, RunError
from lfpc.storage.typed import plain

LONE_SURROGATES = "backslashreplace"
"""Error handler that writes lone surrogates, which UTF-8 lacks, as \\uD800, which JSON reads."""
_DRAFTS = ".*.part"
_OLD = ".old"


@contextmanager
def atomic_file(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """A draft to write, which becomes `path` at the end of the block, and is removed after a
    failure.

    Parent folders are made. Text is UTF-8.

    Raises:
        DiskError: the disk refuses; `path` is unchanged.
    """
    draft = _draft(path)
    text: dict[str, Any] = {"encoding": "utf-8", "errors": LONE_SURROGATES} if mode == "w" else {}
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open(mode, **text) as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """An empty draft folder to fill, which replaces `folder` at the end of the block, and is
    removed after a failure.

    Raises:
        OSError: the disk refuses; `folder` is unchanged.
    """
    draft = _draft(folder)
    draft.mkdir(parents=True)
    try:
        yield draft
        replace_folder(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def replace_folder(draft: Path, folder: Path) -> None:
    """Replace `folder` by `draft`; a reader finds the old or the new one, or for a moment none, but
    never a partial one. `remove_drafts` puts the old one back after a kill in that moment.
    """
    for path in [*draft.rglob("*"), draft]:
        _sync(path)
    old = folder.with_name(f".{folder.name}{_OLD}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_drafts(folder: Path) -> None:
    """Delete drafts of killed processes directly in `folder`, in which no other process may be
    writing. A folder that was moved aside and not yet replaced is moved back.
    """
    for old in folder.glob(f".*{_OLD}"):
        former = old.with_name(old.name[1 : -len(_OLD)])
        if former.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(former)
    for draft in folder.glob(_DRAFTS):
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    with atomic_file(path) as out:
        out.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write `value` (see `plain`) to `path` in one step."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of the JSON file `path`.

    Raises:
        RunError: no such file, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is unreadable ({error}); is this a run folder?") from error


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into a DiskError."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise DiskError(f"{path}: a file is in the way; name another folder") from error
    except OSError as error:
        raise DiskError(f"{path} cannot be written or read: {error.strerror or error}") from error


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{token_hex(6)}.part")


def _sync(path: Path) -> None:
    """Flush a file's content, or the names in a folder, to disk."""
    if os.name != "posix":  # other systems cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


try:
    import fcntl
except ImportError:
    fcntl = None

LOCK_FILE = ".lock"
_guard = RLock()
_held: dict[Path, list[int]] = {}
"""Folder -> [descriptor of its lock file, locks of this process on it]."""


class FolderLock:
    """A lock on `folder` against other processes, until `release` or garbage collection."""

    def __init__(self, folder: Path, *, again: bool = True) -> None:
        """Lock `folder`, which is created if missing.

        Args:
            folder: folder to lock.
            again: whether this process may hold further locks on it.
        Raises:
            RunError: the folder is locked, or not writable.
        """
        key = folder.resolve()
        with _guard:
            if key not in _held:
                _held[key] = [_locked(folder), 0]
            elif not again:
                raise _in_use(folder)
            _held[key][1] += 1
        self.release = weakref.finalize(self, _release, key)
        """Release the lock; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _locked(folder: Path) -> int:
    """Descriptor of the folder's lock file, now locked by this process."""
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _in_use(folder) from None
    except OSError:  # a file system without locks
        pass
    return descriptor


def _in_use(folder: Path) -> RunError:
    return RunError(
        f"{folder} is in use: another process writes there; wait until it ends, or use another "
        f"folder"
    )


def _release(key: Path) -> None:
    with _guard:
        if key in _held:
            _held[key][1] -= 1
            if not _held[key][1]:
                os.close(_held.pop(key)[0])


def _forget() -> None:
    """Forget the parent's locks in a forked process, which would hold them past the parent's
    end.
    """
    global _guard
    _guard = RLock()
    for descriptor, _ in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
