"""`import lfpc`: what it gives, what it costs, and what its functions do with a served model."""

import asyncio
import inspect
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from chat_server import ChatServer
from other_lock import held
from PIL import Image
from test_processes import said_by

import lfpc
from lfpc import cli
from lfpc.cli.evaluating import Eval, Probe
from lfpc.cli.selecting import Select
from lfpc.errors import ConfigError, RunError, SampleError
from lfpc.selection.config import SelectConfig

PACKAGE = Path(lfpc.__file__).parent
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, '
    "28]}}</tool_call>"
)


def say(question, turn, pictures):
    """A crop, then always A."""
    return "<answer>A</answer>" if turn else CALL


@pytest.fixture
def samples(tmp_path):
    """Four questions about a picture each, whose answers are A, A, A, B; the first has a box."""
    found = []
    for n in range(4):
        pixels = np.random.default_rng(n).integers(0, 256, (150, 200, 3), dtype=np.uint8)
        image = tmp_path / "pictures" / f"{n}.png"
        image.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(image)
        boxes = ((lfpc.Box(0, 0, 0.5, 0.5),),) if n == 0 else ()
        found.append(
            lfpc.Sample(
                id=f"s{n}",
                image=image,
                question=f"Colour {n}?",
                answer="B" if n == 3 else "A",
                options=("red", "blue"),
                boxes=boxes,
            )
        )
    return found


@pytest.fixture
def server():
    with ChatServer(say=say) as started:
        yield started


@pytest.fixture
def policy(server):
    return lfpc.served_policy(server.base_url, "scripted", concurrency=4)


def loaded_after(code: str) -> set[str]:
    """Modules in a new interpreter after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


# --- names ----------------------------------------------------------------------------------------


def test_the_import_loads_nothing_but_itself():
    """It takes 12 ms of CPU beyond the interpreter's own 10, most of them for `typing`; the first
    function asked for takes 0.23 s (medians of 9 on two busy cores).
    """
    loaded = loaded_after("import lfpc")
    assert {name for name in loaded if name.partition(".")[0] == "lfpc"} == {"lfpc"}
    assert not loaded & {"torch", "transformers", "numpy", "PIL", "scipy", "openai", "tyro"}


def test_no_name_needs_a_model_framework():
    loaded = loaded_after("from lfpc import *")
    assert "lfpc.api" in loaded
    assert not loaded & {"torch", "transformers", "scipy", "vllm"}


def test_every_public_name_is_there_and_listed():
    assert dir(lfpc) == sorted([*lfpc.__all__, "__version__"])
    assert len(set(lfpc.__all__)) == len(lfpc.__all__)
    assert all(inspect.getdoc(getattr(lfpc, name)) for name in lfpc.__all__)


def test_no_public_name_is_also_that_of_a_module():
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert not modules & set(lfpc.__all__)


def test_a_private_name_is_not_exported():
    for name in ("eval_run", "EvaluationConfig", "nothing"):
        with pytest.raises(AttributeError, match=f"module 'lfpc' has no attribute '{name}'"):
            getattr(lfpc, name)


def test_the_docs_list_every_public_name():
    docs = PACKAGE.parents[1] / "docs"
    page = (docs / "python.md").read_text().split("## Public names", 1)[1]
    reference = (docs / "reference.md").read_text()
    for name in lfpc.__all__:
        assert f"`{name}`" in page
        assert f"::: lfpc.{name}\n" in reference


@pytest.mark.slow
def test_a_type_checker_sees_the_types(tmp_path):
    (tmp_path / "use.py").write_text(
        "import lfpc\n"
        'policy = lfpc.served_policy("http://127.0.0.1:1/v1", "model")\n'
        'result = lfpc.evaluate(policy, "data", "out")\n'
        "reveal_type(result.records)\n"
        'reveal_type(result.lost("noise").delta)\n'
        'reveal_type(lfpc.train("stage1", data="data", init="init", out="out"))\n'
        "reveal_type(lfpc.read_samples)\n"
        'lfpc.evaluate(policy, 3, "out")\n'
        "lfpc.eval_run\n"
    )
    settings = {"typeCheckingMode": "basic", "extraPaths": [str(PACKAGE.parent)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("pyright"),
            "--outputjson",
            "--pythonpath",
            sys.executable,
            "-p",
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(done.stdout)["generalDiagnostics"]
    seen = [one["message"] for one in said if one["severity"] == "information"]
    assert [message.partition(" is ")[2] for message in seen] == [
        '"dict[str, list[EpisodeRecord]]"',
        '"float"',
        '"Path"',
        '"(path: Path | str) -> list[Sample]"',
    ]
    errors = {(one["range"]["start"]["line"], one["rule"]) for one in said if "rule" in one}
    assert {(7, "reportArgumentType"), (8, "reportAttributeAccessIssue")} <= errors
    assert {line for line, _ in errors} == {7, 8}
    assert (PACKAGE / "py.typed").is_file()


# --- functions ------------------------------------------------------------------------------------


def test_an_evaluation_gives_records_summary_and_differences(tmp_path, samples, policy):
    result = lfpc.evaluate(policy, samples, tmp_path / "out", budget=16, progress=False)
    assert list(result.records) == ["own", "noise"]
    assert [record.sample for record in result.records["own"]] == samples
    assert result.summary["accuracy"] == 3 / 4
    assert (result.lost("noise").delta, result.lost("noise").n) == (0, 4)
    assert str(result).splitlines()[0].split()[:2] == ["probe", "accuracy"]
    assert repr(result) == str(result)
    with pytest.raises(ConfigError, match="holds no probe 'blur'; run so far: noise"):
        result.lost("blur")


def test_an_evaluation_writes_what_the_command_writes(tmp_path, samples, server, capsys):
    data = tmp_path / "data"
    lfpc.write_samples(samples, str(data))
    policy = lfpc.served_policy(server.base_url, "scripted", concurrency=4)
    result = lfpc.evaluate(policy, str(data), tmp_path / "python", budget=16, progress=False)
    command = ["eval", str(data), "--base-url", server.base_url, "--model", "scripted"]
    more = ["--budget", "16", "--out", str(tmp_path / "command")]
    asked = len(server.requests)
    assert cli.main([*command, *more]) == 0
    assert len(server.requests) == 2 * asked
    for name in ("16/own/config.json", "16/noise/config.json", "samples.jsonl"):
        assert (tmp_path / "python" / name).read_text() == (tmp_path / "command" / name).read_text()
    found = [
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("python", "command")
    ]
    assert found[0]["configs"]["16/own"]["data"] == found[1]["configs"]["16/own"]["data"]
    assert found[0]["results"]["16/own"]["accuracy,none"] == 0.75
    first = str(result).splitlines()[:3]
    assert capsys.readouterr().out.splitlines()[1:4] == first
    assert cli.main([*command, "--budget", "16", "--out", str(tmp_path / "python")]) == 0
    assert len(server.requests) == 2 * asked  # the command goes on from what Python wrote


def test_an_evaluation_is_not_asked_again_and_runs_inside_an_event_loop(
    tmp_path, samples, policy, server
):
    async def cell():
        return lfpc.evaluate(policy, samples, tmp_path / "out", budget=16, progress=False)

    first = asyncio.run(cell())
    asked = len(server.requests)
    again = lfpc.evaluate(policy, samples, tmp_path / "out", budget=16, progress=False)
    assert asked == 2 * 4 * 2  # two probes, four questions, a crop and an answer
    assert len(server.requests) == asked
    assert again.records == first.records


def test_a_probe_is_added_to_an_evaluation(tmp_path, samples, policy, server):
    result = lfpc.evaluate(policy, samples, tmp_path / "out", budget=16, progress=False)
    more = lfpc.probe(result, ["truth", "none"], policy=policy, progress=False)
    assert list(more.records) == ["own", "noise", "none", "truth"]
    assert (more.lost("truth").n, more.lost("none").n) == (1, 4)
    held = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(held["conditions"][""]["16"]["probes"]) == {"noise", "none", "truth"}
    again = lfpc.probe(tmp_path / "out", "mean", replay=True, progress=False)  # where it was served
    assert list(again.records) == ["own", "mean"]
    other = lfpc.served_policy(server.base_url, "scripted", temperature=0.5)
    with pytest.raises(ConfigError, match=r"`temperature` is 0\.0 in the recorded evaluation but"):
        lfpc.probe(result, ["blur"], policy=other)
    lfpc.evaluate(policy, samples, tmp_path / "out", budget=8, progress=False)
    with pytest.raises(RunError, match="holds several evaluations: 8, 16; name one"):
        lfpc.probe(tmp_path / "out", ["blur"])


def test_a_selection_asks_without_the_tool_and_writes_samples_to_train_on(
    tmp_path, samples, policy, server
):
    out = tmp_path / "selected"
    selection = lfpc.select(policy, samples, str(out), ladder=[32, 16], progress=False)
    assert lfpc.read_samples(out) == selection.samples
    assert [sample.budget for sample in selection.samples] == [16] * 4
    systems = {request["messages"][0]["content"] for request in server.requests}
    assert systems == {policy.config.chat.direct_system}
    with pytest.raises(ConfigError, match="`votes` above 1 need sampled answers"):
        lfpc.select(policy, samples, out, votes=3)


def test_a_selection_called_again_adds_samples_and_keeps_what_was_drawn(
    tmp_path, samples, policy, server
):
    def select():
        return lfpc.select(policy, asked, out, ladder=[32, 16], progress=False)

    out = tmp_path / "selected"
    asked = samples[:3]
    select()
    asked = samples
    drawn = select().samples
    assert lfpc.read_samples(out) == drawn
    drawn[0] = replace(drawn[0], boxes=())
    lfpc.write_samples(drawn, out)
    with pytest.raises(SampleError, match="1 of 4 rows would be changed or removed"):
        select()
    assert lfpc.read_samples(out) == drawn
    with held(out), pytest.raises(RunError, match="is in use"):
        select()


def test_the_defaults_of_a_selection_are_those_of_the_command():
    given = inspect.signature(lfpc.select).parameters
    config = SelectConfig()
    names = ("ladder", "ratios", "never", "wrong", "every_level", "votes")
    assert {name: given[name].default for name in names} == {
        name: getattr(config, name) for name in names
    }


def test_a_run_is_opened_to_be_read(tmp_path, samples, policy):
    lfpc.evaluate(policy, samples, tmp_path / "out", budget=16, probes=[], progress=False)
    run = lfpc.open_run(str(tmp_path / "out" / "16" / "own"))
    assert run.kind == "evaluation"
    assert run.config["budget"] == 16
    assert {key: record.sample for key, record in lfpc.read_records(run).items()} == {
        sample.id: sample for sample in samples
    }
    with pytest.raises(RunError, match="is no run folder"):
        lfpc.open_run(tmp_path)


def test_impossible_requests_are_refused_before_anything_is_asked(
    tmp_path, samples, policy, server
):
    out = tmp_path / "out"
    with pytest.raises(SampleError, match="sample id 's0' is used twice"):
        lfpc.evaluate(policy, [samples[0], replace(samples[1], id="s0")], out)
    with pytest.raises(SampleError, match="no samples"):
        lfpc.evaluate(policy, [], out)
    with pytest.raises(ConfigError, match="`budget` must be at least 1, got 0"):
        lfpc.evaluate(policy, samples, out, budget=0)
    with pytest.raises(ConfigError, match="unknown probe 'nois'"):
        lfpc.evaluate(policy, samples, out, probes=["nois"])
    with pytest.raises(ConfigError, match="`repeats` must be at least 1"):
        lfpc.evaluate(policy, samples, out, repeats=2)
    with pytest.raises(ConfigError, match="is not the address of an API"):
        lfpc.served_policy("127.0.0.1:8000", "scripted")
    with pytest.raises(ConfigError, match="`engine` must be transformers or vllm, got 'sglang'"):
        lfpc.load_policy("checkpoint", engine="sglang")
    with pytest.raises(ConfigError, match="unknown preset 'stage3'"):
        lfpc.train("stage3", data="data", init="init", out=out)
    with pytest.raises(ConfigError, match="unknown key 'step_count'; did you mean"):
        lfpc.train("stage1", data="data", init="init", out=out, step_count=3)
    with pytest.raises(ConfigError, match="`processes` must be at least 1, got 0"):
        lfpc.evaluate(policy, samples, out, processes=0)
    with pytest.raises(ConfigError, match="`processes` must be a whole number, got '2'"):
        lfpc.probe(out, processes="2")
    local = SimpleNamespace(
        config=policy.config, backend=None, reply=None, reseed=lambda seed: None
    )
    with pytest.raises(
        ConfigError, match=r"`processes` is for served models \(`base_url`\).*got 2"
    ):
        lfpc.evaluate(local, samples, out, processes=2)
    with pytest.raises(ConfigError, match=r"`processes` is for served models .*got 3"):
        lfpc.select(local, samples, out, processes=3)
    assert server.requests == []
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.long  # test_processes.py holds it for one run
def test_processes_ask_the_same_also_from_a_script_without_a_guard(tmp_path, samples, server):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, lfpc\n"
        "policy = lfpc.served_policy(sys.argv[1], 'scripted', concurrency=4)\n"
        "options = {'processes': int(sys.argv[4]), 'progress': False}\n"
        "found = lfpc.evaluate(policy, sys.argv[2], sys.argv[3], budget=16, **options)\n"
        "found = lfpc.probe(found, ['none'], policy=policy, **options)\n"
        "print({probe: len(records) for probe, records in found.records.items()})\n"
    )
    data = tmp_path / "data"
    lfpc.write_samples(samples, data)
    for n in ("1", "2"):
        said = said_by(script, server.base_url, data, tmp_path / n, n)
        assert said == "{'own': 4, 'noise': 4, 'none': 4}\n"
    one, two = (
        [
            {key: replace(record, seconds=None) for key, record in found.items()}
            for probe in ("own", "noise", "none")
            for found in [lfpc.read_records(lfpc.open_run(tmp_path / n / "16" / probe))]
        ]
        for n in ("1", "2")
    )
    assert one == two


def test_the_defaults_of_processes_are_those_of_the_commands():
    for function, command in (
        (lfpc.evaluate, Eval),
        (lfpc.probe, Probe),
        (lfpc.select, Select),
    ):
        given = inspect.signature(function).parameters["processes"]
        (option,) = (one for one in fields(command) if one.name == "processes")
        assert given.default is option.default is None


@pytest.mark.slow
def test_a_checkpoint_is_asked_as_it_was_trained_unless_an_argument_overrides(tmp_path, samples):
    from lfpc.mini.folders import base_checkpoint
    from lfpc.policies.settings import read_settings

    base = base_checkpoint()
    trained = read_settings(base)
    policy = lfpc.load_policy(str(base), temperature=1.0)
    assert policy.config == lfpc.PolicyConfig(
        model=str(base),
        protocol=trained.protocol,
        max_new_tokens=trained.max_new_tokens,
        temperature=1.0,
    )
    first = lfpc.evaluate(policy, samples, tmp_path / "a", probes=["own"], progress=False)
    config = lfpc.open_run(first.path / "own").config
    assert first.path == tmp_path / "a" / str(trained.budget)
    assert config["max_turns"] == trained.max_turns
    assert config["crop"]["max_tokens"] == trained.crop.max_tokens
    lfpc.evaluate(policy, samples, tmp_path / "b", budget=16, repeats=2, progress=False)
    again = lfpc.evaluate(policy, samples, tmp_path / "c", probes=["own"], progress=False)
    # the same policy draws the same replies, whatever it was asked in between
    assert [record.turns for record in again.records["own"]] == [
        record.turns for record in first.records["own"]
    ]
    direct = policy.without_tools()
    assert direct.config == policy.config
    assert not direct.encoder.tools
    assert policy.encoder.tools
