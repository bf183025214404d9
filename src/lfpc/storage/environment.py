"""Versions, revision and machine of a run, for `environment.json`."""

import os
import platform
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("lfpc", "torch", "transformers", "tokenizers", "numpy", "pillow")


def environment(*, backend: str = "", device: str = "") -> dict[str, Any]:
    """The content of `environment.json`. None of the packages is imported.

    Args:
        backend: name of the backend: a server's address, "vllm" or "transformers"; empty: none.
        device: torch device; empty: unknown, or another machine's.
    """
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "git": revision_of(Path(__file__).parents[1]),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "backend": backend,
        "device": device,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def revision_of(package: Path) -> str | None:
    """Commit of the git checkout whose `src/lfpc` is `package`, with "-dirty" for changed files;
    None for an installed package, even inside another project's repository.
    """
    root = package.parents[1]
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    own = (root / ".git").exists() and project.get("project", {}).get("name") == "lfpc"
    if not own or package != root / "src" / "lfpc":
        return None
    if not _git(root, "ls-files", "src/lfpc/__init__.py"):
        return None
    return _git(root, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40") or None


def _git(root: Path, *words: str) -> str:
    """Output of git; empty after a failure."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
