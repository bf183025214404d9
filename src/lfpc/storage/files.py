"""Files that are written whole, or not at all.

A draft beside the file is written, flushed to disk and renamed: a reader sees the old file or the
new one, also after a power failure. Every draft has a name that no other process uses and ends in
`.part`. What is appended line by line is in `journal`.
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
"""What UTF-8 cannot hold is written as \\uD800, which JSON reads back as it was."""
_DRAFTS = ".*.part"


@contextmanager
def atomic_file(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """A draft to write, which becomes `path` when the block ends and is removed if it fails.

    Parent folders are made. Text is UTF-8.

    Raises:
        DiskError: the disk refuses; `path` is as it was.
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
    """An empty draft folder to fill, which takes the place of `folder` when the block ends and is
    removed if it fails.

    Raises:
        OSError: the disk refuses; `folder` is as it was.
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
    """Put `draft` in the place of `folder`; a reader finds the old one or the new one, never half
    of one.
    """
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
    """Delete what killed processes left half written directly in `folder`, in which no other
    process may be writing.
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
    """What the JSON file `path` holds.

    Raises:
        RunError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not readable ({error}); is this a run folder?") from error


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn what the operating system reports about `path` into one sentence."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"{path} cannot be written or read: {error.strerror or error}") from error


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{token_hex(6)}.part")


def _sync(path: Path) -> None:
    """Have the disk keep a file's content, or the names in a folder."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
