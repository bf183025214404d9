"""What stands in several files of the project agrees."""

import re
import tomllib
from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lfpc
from environments import ROOT

LOCKED = dict(
    line.split("==")
    for line in (ROOT / "requirements-lock.txt").read_text(encoding="utf-8").splitlines()
)


def test_the_version_is_the_same_everywhere():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == lfpc.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == lfpc.__version__


def test_the_lock_holds_what_the_project_requires_and_the_same_torch():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        Requirement(text)
        for text in (
            *project["dependencies"],
            *(text for name in ("data", "lora", "web", "docs", "dev") for text in extras[name]),
        )
    ]
    locked = {canonicalize_name(name): version for name, version in LOCKED.items()}
    for one in wanted:
        if one.name == "lfpc":  # its own extras
            continue
        version = locked.get(canonicalize_name(one.name))
        assert version is not None, f"{one.name} is not in requirements-lock.txt: make lock"
        assert version in one.specifier, f"{one} is locked at {version}: make lock"
    pinned = (ROOT / "constraints-cpu.txt").read_text().splitlines()[-1]
    assert pinned == f"torch=={locked['torch']}"
    assert requires("lfpc"), "the installed package names its requirements"
