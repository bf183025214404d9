"""Templates and static files of all pages.

Texts of models and data sets are untrusted: templates escape them, scripts put them into text
nodes, file names come from hashes, and a content security policy allows only the page's own files.
"""

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """The templates of `lfpc.report`."""
    return Environment(
        loader=PackageLoader("lfpc.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def typed(line: str) -> str:
    """A line for a page, with the option that it names as it is typed."""
    return line.replace("`max_new_tokens`", "--max-new-tokens")


def copy_static(out: Path) -> None:
    """Copy the pages' style sheet and scripts into `out`."""
    with as_file(files("lfpc.report") / "static") as static:
        shutil.copytree(static, out, dirs_exist_ok=True)
