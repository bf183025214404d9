"""What `python -m bench` says to impossible options."""

import pytest

from bench.__main__ import BENCHMARKS, main
from bench.side_by_side import BenchError
from bench.task import protocol
from lfpc.errors import SampleError
from lfpc.protocols import PROTOCOLS


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nosuch"], "unknown benchmark 'nosuch'; known are grpo_step_vs_trl"),
        (["nosuch"], "probes_together, gpu, profile, scale"),
        (["gpu", "scale"], "gpu runs alone"),
        (["scale", "--rows", "0"], "--steps, --threads and --rows must be at least 1"),
        (["selection", "--model", "m"], "--model, --device and --tiny are for gpu"),
        (["gpu", "--out", __file__], "is a file; name a folder"),
    ],
)
def test_impossible_options_are_named(words, says, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_or_device_that_is_not_there_is_one_sentence(tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    assert main(["gpu", "--model", str(tmp_path / "none"), "--device", "cpu", *out]) == 1
    assert "none/config.json: not the configuration of a" in capsys.readouterr().err
    assert main(["gpu", "--tiny", "--device", "nosuch", *out]) == 1
    assert capsys.readouterr().err.startswith("gpu: --device nosuch is unavailable: ")


def test_a_benchmark_that_fails_leaves_the_others(tmp_path, capsys, monkeypatch):
    def fails(error):
        def run(options):
            raise error

        return run

    monkeypatch.setitem(BENCHMARKS, "selection", fails(BenchError("different work")))
    monkeypatch.setitem(BENCHMARKS, "eval_large", fails(SampleError("`data` is empty")))
    monkeypatch.setitem(BENCHMARKS, "eval_overhead", lambda options: {"ours": 2.0, "theirs": 4.0})
    names = ["selection", "eval_large", "eval_overhead"]
    assert main([*names, "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == ["selection: different work", "eval_large: --data is empty"]
    assert "eval_overhead" in said.out


def test_the_benchmarks_own_protocol_is_known_while_they_run_alone():
    assert "bench" not in PROTOCOLS
    assert protocol() == "bench"
    assert PROTOCOLS.pop("bench").stop == ()
