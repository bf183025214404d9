"""What an installation from a wheel holds, and what it lacks on purpose."""

import ast
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv

import pytest
from chat_server import ChatServer
from PIL import Image

from environments import ROOT
from lfpc.cli import main

SOURCE = ROOT / "src"
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]
LEFT_OUT = {ROOT / path for path in WHEEL["exclude"]}


def imports(file):
    """The module of every import of `file`; of `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def test_nothing_in_the_wheel_but_its_own_verb_needs_what_is_left_out():
    assert LEFT_OUT
    assert all(file.is_file() for file in LEFT_OUT)
    modules = {".".join(file.relative_to(SOURCE).with_suffix("").parts) for file in LEFT_OUT}
    needed = {
        (file.name, module)
        for file in set(SOURCE.rglob("*.py")) - LEFT_OUT
        for module in imports(file)
        if module in modules
    }
    assert needed == {("story.py", "lfpc.mini.pretrain")}


def test_pretraining_without_its_recipe_is_one_sentence(monkeypatch, capsys, tmp_path):
    class Without:
        def find_spec(self, name, path=None, target=None):
            if name == "lfpc.mini.pretrain":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Without(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "lfpc.mini.pretrain", raising=False)
    assert main(["mini", "pretrain", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "lfpc: the recipe of the base checkpoint is in the repository only; run this in a clone "
        "of it\n"
    )


def test_the_package_is_marked_as_typed():
    assert (SOURCE / "lfpc" / "py.typed").is_file()


@pytest.mark.slow
@pytest.mark.long
def test_an_installed_wheel_evaluates_a_served_model(tmp_path):
    """In an environment with nothing but the wheel; requirements come from this one."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    there = tmp_path / "venv" / "lib" / version / "site-packages"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"),
            *("--no-deps", "--no-index", str(wheel)),
        ],
        check=True,
    )
    (there / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    Image.new("RGB", (112, 112), (200, 30, 30)).save(tmp_path / "a.png")
    sample = {"id": "a", "image": "a.png", "question": "Which colour?", "answer": "red"}
    (tmp_path / "samples.jsonl").write_text(json.dumps(sample) + "\n")

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def lfpc(*arguments):
        return run(tmp_path / "venv" / "bin" / "lfpc", *arguments)

    where = "import lfpc, lfpc.mini.demo as d; print(lfpc.__file__, d.base_checkpoint())"
    assert all(path.startswith(str(there)) for path in run(python, "-c", where).split())
    assert "probe" in lfpc("--help")
    with ChatServer(say=lambda *asked: "<answer>red</answer>") as server:
        lfpc(
            *("eval", str(tmp_path), "--base-url", server.base_url, "--model", "scripted"),
            *("--budget", "16", "--out", "run"),
        )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["conditions"][""]["16"]["summary"]["accuracy"] == 1
    page = lfpc("report", "run", "--out", "page")
    assert (tmp_path / "page" / "index.html").is_file(), page
