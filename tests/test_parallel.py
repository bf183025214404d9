"""Jobs side by side: order, results, failures, and a bar that reads files."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lfpc.errors import ConfigError, RunError
from lfpc.playing.jobs import Job, bar_over_files, run_jobs


def append(file, text):
    with file.open("a") as out:
        out.write(text + "\n")
    return text.upper()


def fail():
    raise ConfigError("this cannot be")


def wait_for(file):
    while not file.exists():
        time.sleep(0.01)


@pytest.mark.slow
def test_jobs_wait_for_what_they_come_after_and_else_keep_their_order(tmp_path):
    file = tmp_path / "order"
    ticks = []
    jobs = [
        Job("late", append, (file, "c"), after="early"),
        Job("early", append, (file, "a")),
        Job("other", append, (file, "b")),
    ]
    results = run_jobs(jobs, 1, lambda: ticks.append(time.monotonic()))
    assert results == {"late": "C", "early": "A", "other": "B"}
    assert file.read_text().split() == ["a", "c", "b"], (
        "once `early` is done, `late` is the first in the list"
    )
    assert ticks


@pytest.mark.slow
def test_a_failing_job_ends_everything_with_its_own_sentence(tmp_path):
    jobs = [Job("bad", fail), Job("never", append, (tmp_path / "never", "x"), after="bad")]
    with pytest.raises(ConfigError, match="this cannot be"):
        run_jobs(jobs, 1, lambda: None)
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_a_failing_job_ends_its_own_workers_and_no_other_process(tmp_path):
    foreign = multiprocessing.get_context("spawn").Process(target=wait_for, args=(tmp_path / "go",))
    foreign.start()
    try:
        jobs = [Job("long", wait_for, (tmp_path / "never",)), Job("bad", fail)]
        with pytest.raises(ConfigError, match="this cannot be"):
            run_jobs(jobs, 2, lambda: None)  # would wait for `long` if that were not ended
        assert multiprocessing.active_children() == [foreign]
        (tmp_path / "go").touch()
        foreign.join(60)
        assert foreign.exitcode == 0
    finally:
        foreign.kill()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_is_a_sentence():
    with pytest.raises(RunError, match="a worker process was killed"):
        run_jobs([Job("bad", die)], 1, lambda: None)


def tell_and_wait(file):
    file.write_text(str(os.getpid()))
    wait_for(file.with_suffix(".never"))


JOB = "run_jobs([Job('a', tell_and_wait, (Path(sys.argv[1]),))], 1, lambda: None)"
FOREIGN = """
    child = multiprocessing.get_context("spawn").Process(
        target=tell_and_wait, args=(Path(sys.argv[1]),), daemon=True
    )
    child.start()
    end_with_this_process([child.pid])
    child.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize("work", [JOB, FOREIGN], ids=["job", "foreign"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent_however_it_ends(tmp_path, how, work):
    file = tmp_path / "pid"
    code = (
        "import multiprocessing, sys\nfrom pathlib import Path\n"
        "from test_parallel import tell_and_wait\n"
        "from lfpc.playing.jobs import Job, run_jobs\n"
        "from lfpc.policies.guardian import end_with_this_process\n"
        f"if __name__ == '__main__':\n    {work.strip()}\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(script), str(file)],
        env=environment,
        stderr=subprocess.DEVNULL,
        # a suite in the background of a shell ignores it, and so would this process
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not (file.exists() and file.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(how)
    worker = int(file.read_text())
    ends = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < ends, "the worker has outlived its parent"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_script_without_a_guard_is_not_run_again_by_its_jobs(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from test_parallel import append\n"
        "from lfpc.playing.jobs import Job, run_jobs\n"
        "print('begun')\n"
        "print(run_jobs([Job('a', append, (Path(sys.argv[1]), 'x'))], 1, lambda: None))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n") == ["begun", "{'a': 'X'}", ""]


@pytest.mark.slow
def test_jobs_that_wait_for_nothing_that_exists_are_refused():
    with pytest.raises(ValueError, match="wait for unknown jobs"):
        run_jobs([Job("a", print, after="b")], 1, lambda: None)


def test_the_bar_counts_lines_and_files_that_are_not_there_yet(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lfpc.playing.jobs._LINE_EVERY_S", 0.0)
    first = tmp_path / "first"
    second = tmp_path / "second"
    with bar_over_files({first: (2, 3.0), second: (4, 1.0)}, "work", shown=True) as update:
        update()
        append(first, "line")
        append(second, "line")
        update()
        for _ in range(9):
            append(second, "more than expected")
        append(first, "line")
        update()
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("work")] == [
        "work: 0%",
        "work: 40%",
        "work: 100%",
    ]


def test_the_bar_without_a_terminal_tells_the_time_left(tmp_path, capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("lfpc.playing.jobs._LINE_EVERY_S", 0.0)
    monkeypatch.setattr("lfpc.playing.jobs.time.monotonic", lambda: clock[0])
    file = tmp_path / "lines"
    append(file, "of an earlier call")
    with bar_over_files({file: (5, 1.0)}, "work", shown=True) as update:
        update()
        for _ in range(2):
            clock[0] += 50
            append(file, "line")
            update()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("work")]
    assert said == ["work: 40%, 02:30 left", "work: 60%, 01:40 left"]
