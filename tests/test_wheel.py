"""What an installation from a wheel holds, and what it lacks on purpose."""

import ast
import sys
import tomllib

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
