"""Questions to a served model from several processes: the records of one process, and what happens
when a picture, a process or the parent breaks."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from chat_server import ChatServer
from test_served import policy_of, questions

from lfpc import cli
from lfpc.errors import ConfigError, RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.run import ProbeRun, evaluate_probes
from lfpc.images import CropRules
from lfpc.playing.driver import Failure, Question
from lfpc.playing.processes import check_processes, play_in_processes, processes_for
from lfpc.policies.backends import Server
from lfpc.policies.spawning import be_worker
from lfpc.records import read_records
from lfpc.samples import write_samples

CONFIG = EvaluationConfig(
    model="scripted", budget=16, probe="own", crop=CropRules(min_tokens=4, max_tokens=16)
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("data"), 24)


def records_of(runs, server, place, *, processes=1):
    found = evaluate_probes(
        policy_of(server),
        [replace(run, out=place / run.out) for run in runs],
        progress=False,
        processes=processes,
    )
    return [[replace(record, seconds=None) for record in records] for records in found]


@pytest.mark.slow
def test_records_are_those_of_one_process(samples, tmp_path):
    broken = replace(samples[3], id="broken", image=tmp_path / "none.png")
    asked = [*samples, broken]
    own = ProbeRun(asked, CONFIG, Path("own"))
    with ChatServer() as server:
        (played,) = records_of([own], server, tmp_path / "alone")
        assert [record.sample.id for record in played if record.failed] == ["broken"]
        assert records_of([own], server, tmp_path / "apart", processes=2) == [played]
        runs = [own]
        for probe, replay in (("other", False), ("noise", True), ("repeat", False)):
            config = replace(CONFIG, probe=probe, replay=replay)
            runs.append(ProbeRun(asked, config, Path(probe), played if replay else ()))
        runs.append(ProbeRun(asked[::2], replace(CONFIG, probe="no-tool"), Path("no-tool")))
        expected = [records_of([run], server, tmp_path / "alone")[0] for run in runs]
        assert records_of(runs, server, tmp_path / "together") == expected
        assert records_of(runs, server, tmp_path / "divided", processes=2) == expected
    assert [len(records) for records in expected] == [25, 25, 24, 25, 13]
    assert all(any(record.turns for record in records) for records in expected)
    assert all(record.replayed for record in expected[2])


@pytest.mark.slow
def test_the_commands_divide_their_questions_among_processes(samples, tmp_path):
    write_samples(samples, tmp_path / "data")
    with ChatServer() as server:
        model = ["--base-url", server.base_url, "--model", "scripted", "--concurrency", "6"]
        asked = ["eval", str(tmp_path / "data"), *model, "--budget", "16"]
        found = []
        for number in ("1", "2"):
            out = tmp_path / number
            assert cli.main([*asked, "--out", str(out), "--processes", number]) == 0
            options = ["--probes", "none", "--processes", number]
            assert cli.main(["probe", str(out), *options]) == 0
            found.append(
                {
                    probe: {
                        key: replace(record, seconds=None)
                        for key, record in read_records(out / "16" / probe).items()
                    }
                    for probe in ("own", "noise", "none")
                }
            )
    one, two = found
    assert [len(some) for some in one.values()] == [len(samples)] * 3
    assert one == two


class Waiting:
    """A policy of two samples in play that nobody asks."""

    concurrency = 2

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def reply_to(self, context):
        raise AssertionError("its items are done before they ask")


def working(work, players):
    """Items that begin with `work` on their sample and are done."""

    def item(sample):
        work(sample)
        return players
        yield Question(list)

    return item, Waiting()


def played(samples, work, record=lambda some: None, **options):
    settings = {"processes": 2, "concurrency": 3, "picture": lambda sample: sample.image} | options
    play_in_processes(samples, partial(working, work), record, **settings)


def nothing(sample):
    pass


def killed(sample):
    if sample.id == "s5":
        os.kill(os.getpid(), signal.SIGKILL)


def wrong(sample):
    if sample.id == "s5":
        raise ZeroDivisionError("a fault in the program")


@pytest.mark.slow
def test_every_sample_is_played_once_and_concurrency_is_divided(samples):
    found = []
    played(samples, nothing, found.extend)
    assert sorted(sample.id for sample, _, _ in found) == sorted(one.id for one in samples)
    assert {result for _, result, _ in found} == {1, 2}
    assert not any(isinstance(result, Failure) for _, result, _ in found)


def timed(players):
    """Items whose result is their process, beginning and end."""

    def item(asked):
        began = time.monotonic()
        time.sleep(0.01)
        return os.getpid(), began, time.monotonic()
        yield Question(list)

    return item, Waiting()


@pytest.mark.slow
def test_the_probes_of_a_sample_are_played_one_after_another_in_one_process(samples):
    asked = [(probe, sample) for sample in samples for probe in ("own", "noise", "none")]
    found = []
    options = {"picture": lambda one: one[1].image, "one_by_one": lambda one: one[1].id}
    play_in_processes(asked, timed, found.extend, processes=2, concurrency=5, **options)
    assert sorted((probe, sample.id) for (probe, sample), *_ in found) == sorted(
        (probe, sample.id) for probe, sample in asked
    )
    by_sample = {sample.id: [] for sample in samples}
    for (probe, sample), result, _ in found:
        by_sample[sample.id].append((probe, *result))
    for some in by_sample.values():
        assert [probe for probe, *_ in some] == ["own", "noise", "none"]
        assert len({process for _, process, *_ in some}) == 1
        assert all(one[3] <= after[2] for one, after in pairwise(some))
    assert len({result[0] for _, result, _ in found}) == 2
    of_picture = {}
    for (_, sample), (process, *_), _ in found:
        of_picture.setdefault(sample.image, set()).add(process)
    assert [len(some) for some in of_picture.values()].count(1) >= len(of_picture) - 2


@pytest.mark.slow
def test_what_ends_a_run_in_a_process_ends_it_here(samples):
    with pytest.raises(RunError, match=r"a worker process was killed.*fewer `processes`"):
        played(samples, killed)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a fault in the program"):
        played(samples, wrong)

    def full(some):
        raise RunError("the disk is full")

    with pytest.raises(RunError, match="the disk is full"):
        played(samples, nothing, full)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("inherited", [signal.SIG_IGN, signal.default_int_handler])
def test_a_worker_of_a_command_in_the_background_ignores_ctrl_c_as_that_does(inherited):
    before = signal.signal(signal.SIGINT, inherited)
    try:
        be_worker()
        found = signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert found is (signal.SIG_IGN if inherited is signal.SIG_IGN else signal.SIG_DFL)


@pytest.mark.parametrize("place", ["__main__", __name__])
def test_samples_that_other_processes_cannot_read_are_named(samples, monkeypatch, place):
    class Worded(str):
        __slots__ = ()

    Worded.__module__ = place
    Worded.__qualname__ = "Worded"
    monkeypatch.setattr(sys.modules["__main__"], "Worded", Worded, raising=False)
    worded = [replace(sample, question=Worded("Where?")) for sample in samples]
    with pytest.raises(ConfigError, match=r"cannot be sent to worker processes: .*Worded.* to 1"):
        played(worded, nothing)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_script_without_a_guard_is_not_run_again_by_its_processes(samples, tmp_path):
    write_samples(samples, tmp_path)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom test_processes import nothing, played\n"
        "from lfpc.samples import read_samples\n"
        "found = []\nplayed(read_samples(sys.argv[1]), nothing, found.extend)\nprint(len(found))\n"
    )
    assert said_by(script, tmp_path) == f"{len(samples)}\n"


def said_by(script, *words):
    """What a script prints, alone."""
    done = subprocess.run(
        [sys.executable, script, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_processes_end_with_their_parent(samples, tmp_path, how):
    write_samples(samples, tmp_path)
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys\nfrom test_processes import played, tell_and_wait\n"
        "from lfpc.samples import read_samples\n"
        "if __name__ == '__main__':\n    played(read_samples(sys.argv[1]), tell_and_wait)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOLD": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment,
        stderr=subprocess.DEVNULL,
        # a suite in the background of a shell ignores it, and so would this process
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while len(told := list(tmp_path.glob("*.pid"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(how)
    ends = time.monotonic() + 60
    while any(Path(f"/proc/{file.stem}").exists() for file in told):
        assert time.monotonic() < ends, "a process has outlived its parent"
        time.sleep(0.05)


def tell_and_wait(sample):
    Path(os.environ["TOLD"], f"{os.getpid()}.pid").touch()
    time.sleep(600)


def test_processes_are_for_servers_and_as_many_as_the_pictures_are_worth(samples, monkeypatch):
    server = Server(base_url="http://127.0.0.1:1/v1")
    check_processes(None, None)
    check_processes(1, None)
    check_processes(4, server)
    with pytest.raises(ConfigError, match="`processes` must be at least 1, got 0"):
        check_processes(0, server)
    with pytest.raises(ConfigError, match="`processes` is for served models"):
        check_processes(2, None)

    monkeypatch.setattr("lfpc.playing.processes.os.cpu_count", lambda: 8)
    monkeypatch.setattr("lfpc.playing.processes._memory", lambda: 2**50)
    assert processes_for(samples, 32) == 1
    assert processes_for([], 32) == 1
    monkeypatch.setattr("lfpc.playing.processes.upright_size", lambda path: (7680, 4320))
    assert processes_for(samples, 32) == 1
    assert processes_for(samples * 10, 32) == 3  # 240 pictures
    assert processes_for(samples * 100, 32) == 8
    assert processes_for(samples * 100, 6) == 3
    monkeypatch.setattr("lfpc.playing.processes._memory", lambda: 8 * 2**30)
    assert processes_for(samples * 100, 32) == 2
