"""The Dockerfile of the GPU path, as far as it can be checked without Docker."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from environments import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STEPS = [
    (word, " ".join(rest.split()))
    for word, _, rest in (
        line.partition(" ")
        for line in re.sub(r"\\\n", "", TEXT).splitlines()
        if line and not line.startswith("#")
    )
]
KNOWN = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "WORKDIR"}


def of(kind):
    return [text for word, text in STEPS if word == kind]


def copied():
    """The sources of every COPY, relative to the project."""
    return [name for text in of("COPY") for name in text.split()[:-1]]


def test_every_step_is_known_and_the_base_image_has_a_tag():
    assert {word for word, _ in STEPS} <= KNOWN
    (base,) = of("FROM")
    assert STEPS[0][0] == "FROM"
    name, _, tag = base.partition(":")
    assert name == "nvidia/cuda"
    assert re.fullmatch(r"\d+\.\d+\.\d+-devel-ubuntu24\.04", tag)  # nvcc, and Python 3.12
    for text in of("CMD") + of("ENTRYPOINT"):
        assert re.fullmatch(r'\["[^"]+"(, "[^"]+")*\]', text), "as a list: no shell in between"


def test_what_a_step_uses_is_copied_before_it():
    seen, extras = set(), []
    for word, text in STEPS:
        if word == "COPY":
            for name in text.split()[:-1]:
                assert (ROOT / name).exists(), name
                seen.add(name)
        if word == "RUN":
            assert set(re.findall(r"-r (\S+)", text)) <= seen
            for names in re.findall(r"'\.\[([\w,]+)\]'", text):
                assert {"pyproject.toml", "LICENSE", "src"} <= seen
                extras += names.split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras
    assert set(extras) <= set(known["optional-dependencies"])
    cluster = (ROOT / "docs" / "cluster.md").read_text()
    (flash,) = re.findall(r"--no-build-isolation '([^']+)'", " ".join(of("RUN")))
    assert f"pip install --no-build-isolation '{flash}'" in cluster


def test_packages_leave_no_caches_and_nothing_names_this_machine():
    for text in of("RUN"):
        subprocess.run(["sh", "-n", "-c", text], check=True)
        if "apt-get install" in text:
            assert "--no-install-recommends" in text
            assert text.startswith("apt-get update ")
            assert text.endswith("rm -rf /var/lib/apt/lists/*")
        for part in re.findall(r"pip install [^&;]*", text):
            assert "--no-cache-dir" in shlex.split(part)
    assert str(ROOT) not in TEXT
    assert "/root" not in TEXT
    assert "/home" not in TEXT


def test_the_context_holds_what_is_copied_and_little_else():
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())


@pytest.mark.slow
def test_the_copied_files_alone_build_the_package(tmp_path):
    for name in copied():
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"lfpc/__init__.py", "lfpc/mini/checkpoint/config.json"} <= names
