"""The completion script in a real bash."""

import subprocess
from pathlib import Path

import pytest

from lfpc import cli
from lfpc.training.presets import PRESETS

ASKED = """
source "$1"; shift
COMP_WORDS=(lfpc "$@"); COMP_CWORD=$#; COMPREPLY=()
$(complete -p lfpc | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from contextlib import redirect_stdout

    file = tmp_path_factory.mktemp("completion") / "lfpc"
    with file.open("w") as stream, redirect_stdout(stream):
        assert cli.main(["completion", "bash"]) == 0
    return file


def completed(script: Path, *words: str) -> set[str]:
    """What TAB offers after the words, of which the last may be cut off."""
    done = subprocess.run(
        ["bash", "-c", ASKED, "bash", str(script), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split()) - {"-h", "--help"}


@pytest.mark.slow
def test_tab_offers_commands_groups_presets_options_and_choices(script: Path) -> None:
    firsts = {name.partition(" ")[0] for name in cli.VERBS}
    assert completed(script, "") == firsts
    for group in ("data", "mini", "protocols"):
        verbs = {name.partition(" ")[2] for name in cli.VERBS if name.startswith(f"{group} ")}
        assert completed(script, group, "") == verbs
    assert completed(script, "data", "imp") == {"import", "import-boxes"}
    assert completed(script, "data", "check", "--h") == {"--hashes"}
    assert completed(script, "train", "") == set(PRESETS)
    assert completed(script, "train", "stage2", "--reward.gr") == {"--reward.grounding"}
    assert completed(script, "train", "stage1", "--engine", "") == {"local", "verl"}
    assert completed(script, "eval", "--tem") == {"--temperature"}


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_have_a_script_with_every_preset(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in PRESETS)
