"""What stands in several files of the project agrees."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires

import pytest
from chat_server import ChatServer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lfpc
from environments import ROOT
from lfpc.samples import write_samples

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


def test_the_readme_is_short_and_cites_what_the_citation_file_does():
    readme = (ROOT / "README.md").read_text()
    cited = (ROOT / "CITATION.cff").read_text()
    assert len(readme.splitlines()) <= 120
    assert f"version = {{{lfpc.__version__}}}" in readme
    for name in re.findall(r"family-names: ([^,}]+), given-names: ([^}]+)}", cited):
        assert f"{name[0]}, {name[1]}" in readme
    (title,) = re.findall(r'title: "(Learning.*)"', cited)
    assert f"title   = {{{title}}}" in readme


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    assert len(links) > 20
    assert not [link for link in links if "://" not in link and not (ROOT / link).is_file()]


MODELS = {"safetensors", "tensorboard", "tokenizers", "torch", "transformers"}
"""Requirements that only a model in this process needs."""


def test_the_requirements_of_served_models_are_the_others():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements-served.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        text for text in project["dependencies"] if Requirement(text).name not in MODELS
    ]


@pytest.mark.slow
def test_a_served_model_is_evaluated_probed_and_reported_without_torch(tmp_path, picture, sample):
    samples = [
        sample(id=name, image=picture(f"{name}.png"), answer="red", boxes=()) for name in "ab"
    ]
    write_samples(samples, tmp_path / "data")
    without = f"""
import json, sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(MODELS)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Without())
from lfpc.cli import main
for command in json.loads(sys.argv[1]):
    print(command[0], main(command), file=sys.stderr)
"""

    def say(question, turn, pictures):
        call = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, 28]}}'
        return "<answer>red</answer>" if turn else f"<tool_call>{call}</tool_call>"

    with ChatServer(say=say) as server:
        served = ("--base-url", server.base_url, "--model", "scripted")
        commands = (
            ("eval", "data", *served, "--budget", "16", "--out", "run"),
            ("probe", "run", "--probes", "other", "--replay"),
            ("select", "data", *served, "--ladder", "16", "4", "--out", "selected"),
            ("compare", "run", "run"),
            ("report", "run", "--out", "page"),
            ("ask", str(samples[0].image), "Which colour?", *served),
            ("train", "stage1", "--data", "data", "--init", "7b", "--out", "local"),
        )
        (tmp_path / "7b").mkdir()
        (tmp_path / "7b" / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
        done = subprocess.run(
            [sys.executable, "-c", without, json.dumps(commands)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    for verb in ("eval", "probe", "select", "compare", "report", "ask"):
        assert f"{verb} 0\n" in done.stderr, done.stderr
    assert "lfpc: torch is not installed, and this command needs it" in done.stderr
    assert done.stderr.endswith("train 1\n")


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
