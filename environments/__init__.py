"""Virtual environments beside the main one, for packages that shall not decide about the versions
this package is used with.

    python -m environments vllm        # makes .venv-vllm from vllm.txt once, prints its interpreter

NAME.txt                     what goes into .venv-NAME (published.txt: into .venv/published)
NAME-alone.txt               what goes in after it, without its requirements
torchvision_without_cuda.py  lets a torchvision built for CUDA be imported beside a torch that is
                             not; for these environments only
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
_FOLDER = Path(__file__).parent
_HOOK = _FOLDER / "torchvision_without_cuda.py"
_IS_THERE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
_SOUND = ("torchaudio", "torchcodec")
"""Packages for sound and video that come along; transformers imports them as soon as they are
there."""


class SetupError(Exception):
    """An environment that cannot be made; the last word of pip is in the text."""


def interpreter(name: str) -> Path:
    """Where the interpreter of the environment `name` is, made or not."""
    return ROOT / f".venv-{name}" / "bin" / "python"


def made(name: str, pins: Sequence[str] = ()) -> bool:
    """Whether the environment `name` is there, whole and of today's requirements and `pins`."""
    stamp = _stamp(name)
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _wanted(name, pins)


def make(name: str, pins: Sequence[str] = ()) -> Path:
    """The interpreter of the environment `name`, which is made on the first call and after its
    requirements changed.

    Args:
        name: of a file NAME.txt beside this one.
        pins: versions that hold besides, as in "torch==2.13.0".
    Raises:
        SetupError: it cannot be installed, or its torchvision cannot be imported.
    """
    python = interpreter(name)
    if made(name, pins):
        return python
    print(f"installing .venv-{name} (once, some minutes)", file=sys.stderr, flush=True)
    if not python.exists():
        _run(name, [sys.executable, "-m", "venv", str(python.parents[1])])
    with TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
        index = (
            ["--extra-index-url", os.environ["TORCH_INDEX"]]
            if os.environ.get("TORCH_INDEX")
            else []
        )
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run(name, [*pip, *index, "-c", str(constraints), "-r", str(_FOLDER / f"{name}.txt")])
        if (alone := _alone(name)).exists():
            _run(name, [*pip, "--no-deps", "-r", str(alone)])
    _mend(name, python)
    _stamp(name).write_text(_wanted(name, pins), encoding="utf-8")
    return python


def _mend(name: str, python: Path) -> None:
    """Make up for companions of torch that were built for another torch than the one that is
    there.
    """
    if _is_broken(
        python, "torchvision"
    ):  # at every start of `python`, worker processes included, the hook is loaded
        packages = _run(
            name, [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        ).strip()
        shutil.copyfile(_HOOK, Path(packages) / _HOOK.name)
        Path(packages, f"{_HOOK.stem}.pth").write_text(f"import {_HOOK.stem}\n", encoding="utf-8")
        _run(name, [str(python), "-c", "import torchvision"])
    if useless := [package for package in _SOUND if _is_broken(python, package)]:
        _run(name, [str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *useless])


def _is_broken(python: Path, package: str) -> bool:
    """Whether `package` is installed and cannot be imported."""
    return _passes([str(python), "-c", _IS_THERE, package]) and not _passes(
        [str(python), "-c", f"import {package}"]
    )


def _stamp(name: str) -> Path:
    return interpreter(name).parents[1] / ".installed"


def _alone(name: str) -> Path:
    return _FOLDER / f"{name}-alone.txt"


def _wanted(name: str, pins: Sequence[str]) -> str:
    return "\n".join(
        [
            (_FOLDER / f"{name}.txt").read_text(encoding="utf-8"),
            *([alone.read_text(encoding="utf-8")] if (alone := _alone(name)).exists() else []),
            *pins,
            _HOOK.read_text(encoding="utf-8"),
        ]
    )


def _passes(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(name: str, command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR")
        ] or done.stderr.splitlines()[-1:]
        raise SetupError(f".venv-{name} cannot be installed: " + " ".join(errors))
    return done.stdout
