"""`python -m bench.files_run ARGUMENTS`: print the files that run in `lfpc ARGUMENTS`."""

import importlib
import pkgutil
import sys
import threading
from pathlib import Path
from types import FrameType

import lfpc
from lfpc.cli import main

ROOT = Path(lfpc.__file__).parent


def files_run(arguments: list[str]) -> list[str]:
    """Files of the package in which a function ran, without what runs on import."""
    for module in pkgutil.walk_packages(lfpc.__path__, "lfpc."):
        if ".verl" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            found.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        main(arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    inside = [Path(name) for name in found if name.startswith(f"{ROOT}/")]
    return sorted(path.relative_to(ROOT).as_posix() for path in inside)


if __name__ == "__main__":
    run = files_run(sys.argv[1:])
    print(*run, f"{len(run)} files", sep="\n")
