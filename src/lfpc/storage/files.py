"""Atomic writes of files and folders.

A draft beside the file is written, flushed to disk and renamed: a reader sees the old file or the
new one, even after a power failure. Every draft has a unique name that ends in `.part`. Appended
lines are in `journal`.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO, Any, Literal

from lfpc.errors import DiskError, RunError
from lfpc.storage.typed import plain

LONE_SURROGATES = "backslashreplace"
"""Error handler that writes lone surrogates, which UTF-8 lacks, as \\uD800, which JSON reads."""
_DRAFTS = ".*.part"


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
    """Replace `folder` by `draft`; a reader finds the old or the new one, never a partial one."""
    for path in [*draft.rglob("*"), draft]:
        _sync(path)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_drafts(folder: Path) -> None:
    """Delete drafts of killed processes directly in `folder`, in which no other process may be
    writing.
    """
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
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is unreadable ({error}); is this a run folder?") from error


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into a DiskError."""
    try:
        yield
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
