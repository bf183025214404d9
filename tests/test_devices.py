"""Several devices: a process each, one run folder, the same replies."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from test_processes import said_by

from lfpc.cli import main
from lfpc.errors import ConfigError, PolicyError
from lfpc.policies.backends import Transformers, VllmEngine
from lfpc.policies.config import PolicyConfig
from lfpc.policies.devices import placed
from lfpc.policies.loading import any_policy
from lfpc.policies.qwen.checkpoint import save_checkpoint
from lfpc.policies.replicated import ReplicatedPolicy
from lfpc.records import read_records
from lfpc.samples import write_samples
from lfpc.storage.runs import RunFolder

pytestmark = pytest.mark.slow
TWO = Transformers(device="cpu,cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path_factory.mktemp("two") / "init")


def config(folder, **changes):
    return replace(
        PolicyConfig(model=str(folder), temperature=1.0, max_new_tokens=6, sampling_seed=3),
        **changes,
    )


def contexts():
    first = tiny.view(0)
    asked = [
        tiny.context("What mark?", first),
        tiny.context("Where?", tiny.view(1, 84, 112)),
        tiny.context("What mark?", first, tiny.crop_turn(2, width=84)),
        tiny.context("What mark?", tiny.view(0)),
    ]
    return [replace(context, key=f"q{n}") for n, context in enumerate(asked)]


@pytest.fixture(scope="module")
def two(folder):
    policy = any_policy(config(folder), TWO)
    assert isinstance(policy, ReplicatedPolicy)
    yield policy
    policy.close()


def texts(replies):
    return [reply.token_ids for reply in replies]


def test_two_devices_reply_as_one(folder, two):
    one = any_policy(config(folder), Transformers(device="cpu"))
    assert two.copies == 2
    assert texts(two.reply(contexts())) == texts(one.reply(contexts()))
    assert two._home == {"q0": 0, "q1": 1, "q2": 0, "q3": 1}
    with two.cached_views():
        again = texts(two.reply(contexts()))
        assert texts(two.reply(contexts()[::-1])) == again[::-1]
    two.reseed(4)
    one.reseed(4)
    assert texts(two.reply(contexts())) == texts(one.reply(contexts())) != again
    bare = texts(two.without_tools().reply(contexts()[:2]))
    assert bare == texts(one.without_tools().reply(contexts()[:2]))
    assert two.config == one.config


@pytest.mark.long  # test_processes.py holds it for processes without a model
def test_a_script_without_a_guard_is_not_run_again_by_its_processes(folder, two, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, lfpc, test_devices\n"
        "settings = {'temperature': 1.0, 'max_new_tokens': 6, 'sampling_seed': 3}\n"
        "policy = lfpc.load_policy(sys.argv[1], device='cpu,cpu', **settings)\n"
        "print(test_devices.texts(policy.reply(test_devices.contexts())))\n"
    )
    two.reseed(3)
    assert said_by(script, folder) == f"{texts(two.reply(contexts()))}\n"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_processes_end_with_their_parent(folder, tmp_path, how):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time, lfpc\n"
        "policy = lfpc.load_policy(sys.argv[1], device='cpu,cpu', max_new_tokens=6)\n"
        "print(*(pid for one in policy._workers for pid in one._processes), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # a suite in the background of a shell ignores it, and so would this process
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        workers = process.stdout.readline().split()
        assert len(workers) == 2
        process.send_signal(how)
    ends = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < ends, "a process has outlived its parent"
        time.sleep(0.05)


def test_a_process_that_ends_is_said_in_a_sentence(folder):
    policy = any_policy(config(folder), TWO)
    (process,) = policy._workers[1]._processes.values()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(PolicyError, match="has ended, perhaps for lack of memory"):
        policy.reply(contexts())
    policy.close()


def test_questions_and_settings_that_no_process_can_read_are_named(folder, monkeypatch):
    class Worded(str):
        __slots__ = ()

    Worded.__module__ = "__main__"
    Worded.__qualname__ = "Worded"
    monkeypatch.setattr(sys.modules["__main__"], "Worded", Worded, raising=False)
    with pytest.raises(ConfigError, match=r"the settings cannot be sent .*Worded.* one `device`"):
        any_policy(config(folder, model=Worded(folder)), TWO)
    policy = any_policy(config(folder), TWO)
    asked = [replace(context, question=Worded("Where?")) for context in contexts()]
    with pytest.raises(ConfigError, match=r"the questions cannot be sent .*Worded.* one `device`"):
        policy.reply(asked)
    policy.close()


def test_what_a_process_cannot_load_is_said_as_without_it(folder):
    with pytest.raises(ConfigError, match="`device` nowhere is unavailable"):
        any_policy(config(folder), Transformers(device="cpu,nowhere"))
    with pytest.raises(ConfigError, match="uses one device"):
        placed(TWO)


def test_an_evaluation_on_two_devices_writes_one_run(folder, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    samples = [tiny.sample(tmp_path / "data", n) for n in range(5)]
    write_samples(samples, tmp_path / "data")

    def records(device, out):
        words = f"eval {tmp_path / 'data'} --checkpoint {folder} --out {out} --device {device}"
        assert main([*words.split(), "--max-new-tokens", "5", "--probes", "own"]) == 0
        (own,) = out.rglob("own")
        found = read_records(RunFolder(own)).items()
        return {name: [turn.text for turn in record.turns] for name, record in found}

    found = records("cpu,cpu", tmp_path / "two")
    assert len(found) == 5
    assert found == records("cpu", tmp_path / "one")


def test_options_of_vllm_are_its_arguments():
    engine = VllmEngine(
        tensor_parallel=2, gpu_share=0.5, max_model_len=4096, options={"max_model_len": 8192}
    )
    assert engine.arguments == {
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.5,
        "max_model_len": 8192,
    }
    assert VllmEngine().arguments == {}
    for name, value in (("tensor_parallel", 0), ("gpu_share", 1.5), ("max_model_len", 0)):
        with pytest.raises(ConfigError, match=f"`{name}` must be"):
            VllmEngine(**{name: value})


@pytest.mark.parametrize("verb", ["eval", "probe", "select", "ask", "serve", "annotate"])
def test_every_verb_that_loads_a_model_has_the_same_options(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    for option in ("--device", "--dtype", "--batch-tokens", "--tensor-parallel", "--gpu-share"):
        assert len(re.findall(rf"^[│ ] {option}[ ,]", shown, re.MULTILINE)) == 1, option
