"""Starts processes that do not run this one's script again."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that multiprocessing spawns in this block do not import `__main__`.

    They would run a script without the guard `if __name__ == "__main__"` from its first line, with
    the call that starts them. What they unpickle must come from other modules.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")  # without a file to run
    try:
        yield
    finally:
        sys.modules["__main__"] = main
