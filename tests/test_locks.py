import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lfpc.cli import main
from lfpc.errors import RunError
from lfpc.rewards import RewardConfig
from lfpc.storage.files import FolderLock
from lfpc.storage.runs import Kind, RunFolder, read_run

HOLD = """
import sys
from pathlib import Path
from lfpc.errors import RunError
from lfpc.rewards import RewardConfig
from lfpc.storage.runs import Kind, RunFolder

try:
    run = RunFolder.open(Path(sys.argv[1]), Kind.TRAIN, RewardConfig())
    print("held", flush=True)
    sys.stdin.read()
except RunError as error:
    print(error, flush=True)
"""


def opened(path: Path) -> RunFolder:
    return RunFolder.open(path, Kind.TRAIN, RewardConfig())


def other_process(path: Path) -> "subprocess.Popen[str]":
    """Opens the run `path` and holds it until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_is_refused_in_one_sentence_until_the_first_closes(tmp_path: Path) -> None:
    says = (
        f"{tmp_path} is in use: another process writes there; wait until it ends, or use "
        f"another folder"
    )
    with opened(tmp_path), other_process(tmp_path) as second:
        assert first_line(second) == says
    with other_process(tmp_path) as second:
        assert first_line(second) == "held"
        with pytest.raises(RunError) as refused:
            opened(tmp_path)
        assert str(refused.value) == says
        assert read_run(tmp_path).kind == "train"  # reading takes no lock


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    with other_process(tmp_path) as first:
        assert first_line(first) == "held"
        first.send_signal(signal.SIGKILL)
    opened(tmp_path).log_metrics({"step": 1})


def test_one_process_opens_a_run_again_and_holds_it_until_the_last_closes(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with opened(tmp_path):
        first.close()
        first.close()
        with other_process(tmp_path) as second:
            assert "is in use" in first_line(second)
    with other_process(tmp_path) as second:
        assert first_line(second) == "held"


def test_a_run_that_nobody_refers_to_any_more_is_free(tmp_path: Path) -> None:
    opened(tmp_path)
    with other_process(tmp_path) as second:
        assert first_line(second) == "held"


def test_a_run_that_could_not_be_opened_is_free(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(RunError, match="kind train") as _refused:
        RunFolder.open(tmp_path, Kind.IMPORT, RewardConfig())
    with other_process(tmp_path) as second:
        assert first_line(second) == "held"


def test_a_lock_that_is_held_once_is_refused_to_the_same_process(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path, again=False)
    with pytest.raises(RunError, match="is in use"):
        FolderLock(tmp_path, again=False)
    lock.release()
    FolderLock(tmp_path, again=False).release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_process_keeps_no_lock_past_the_end_of_its_parent(tmp_path: Path) -> None:
    fork = "import os\n    if os.fork(): sys.stdin.read()"  # the child prints, its parent waits
    code = HOLD.replace('print("held"', f'{fork}\n    print("held"')
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert first_line(process) == "held"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with opened(tmp_path):
            pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["demo", "--out"], ["mini", "pretrain", "--out"]], ids=["demo", "pretrain"]
)
def test_a_study_is_made_by_one_process(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    hold = (
        "import sys; from pathlib import Path; from lfpc.storage.files import FolderLock; "
        "lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert first_line(other) == "held"
        assert main([*command, str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"lfpc: {tmp_path} is in use")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
