"""What every page is made of: templates that escape what they are given, and the files the pages
load.

Whatever models and data sets wrote is text to a page: templates escape it, scripts put it into text
nodes, file names come from hashes, and a content security policy lets nothing but the page's own
files run or load.
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


def copy_static(out: Path) -> None:
    """Put the pages' style sheet and scripts into `out`."""
    with as_file(files("lfpc.report") / "static") as static:
        shutil.copytree(static, out, dirs_exist_ok=True)
