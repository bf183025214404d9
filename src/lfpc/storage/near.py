"""Folders with almost the name that was typed."""

from difflib import get_close_matches
from pathlib import Path


def missing_folder(typed: Path) -> str:
    """A sentence about a folder that is not there, with the nearest one that is, if any."""
    if typed.exists():
        return f"{typed}: a file, not a folder"
    near = _nearest(typed)
    return f"{typed}: no such folder" + (f"; did you mean {near}?" if near else "")


def _nearest(typed: Path) -> Path | None:
    """The folder whose names are nearest to those of `typed`, part by part."""
    found = Path(typed.anchor)
    for part in typed.relative_to(typed.anchor).parts:
        if not (found / part).is_dir():
            near = get_close_matches(part, _folders(found), n=1)
            if not near:
                return None
            part = near[0]
        found /= part
    return found if found.is_dir() and found != typed else None


def _folders(parent: Path) -> list[str]:
    try:
        return sorted(inner.name for inner in parent.iterdir() if inner.is_dir())
    except OSError:  # the hint is left out
        return []
