import subprocess
from pathlib import Path

import pytest

from lfpc.storage.environment import environment, revision_of


def repository(root: Path, name: str, package: str) -> Path:
    """A git checkout of the project `name` with one commit; returns its folder `package`."""
    folder = root / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (root / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return folder


def test_a_checkout_of_this_package_has_its_commit_and_marks_changes(
    tmp_path: Path,
) -> None:
    package = repository(tmp_path, "lfpc", "src/lfpc")
    head = ["git", "-C", str(tmp_path), "rev-parse", "HEAD"]
    commit = subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()
    assert revision_of(package) == commit
    (package / "__init__.py").write_text("changed")
    revision_of.cache_clear()
    assert revision_of(package) == f"{commit}-dirty"


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("theirs", ".venv/lib/python3.11/site-packages/lfpc"),
        ("theirs", "src/lfpc"),
        ("lfpc", "vendored/lfpc"),
    ],
)
def test_the_commit_of_another_project_is_not_ours(tmp_path: Path, name: str, package: str) -> None:
    assert revision_of(repository(tmp_path, name, package)) is None


def test_files_that_git_does_not_track_have_no_commit(tmp_path: Path) -> None:
    repository(tmp_path, "lfpc", "other")
    package = tmp_path / "src" / "lfpc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert revision_of(package) is None


def test_who_computes_replies_is_apart_from_the_device() -> None:
    found = environment(backend="http://localhost:8000/v1", device="cuda:0")
    assert (found["backend"], found["device"]) == ("http://localhost:8000/v1", "cuda:0")
