"""The help of every command as a page of the docs: `python -m lfpc.cli.reference > docs/cli.md`."""

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress

from lfpc import cli


def page() -> str:
    """docs/cli.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Commands"
    yield ""
    yield "What `lfpc COMMAND --help` prints. Made by `python -m lfpc.cli.reference`."
    yield ""
    yield "[`lfpc completion bash`](#lfpc-completion) completes all of them with TAB."
    for name in [*cli.VERBS, "train stage1"]:
        yield from ("", f"## lfpc {name}", "", "```text", *_help(name), "```")


def _help(name: str) -> list[str]:
    """The help of one command, 100 columns wide, without borders."""
    shown = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with redirect_stdout(shown), suppress(SystemExit):
            cli.main([*name.split(), "--help"])
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return [line.rstrip() for line in shown.getvalue().strip().splitlines()]


if __name__ == "__main__":
    print(page(), end="")
