"""Mistakes of a first hour: each is one sentence, in the caller's language, before anything is
asked or written."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from PIL import Image

import lfpc
from lfpc import cli
from lfpc.cli.typed import as_typed
from lfpc.errors import LfpcError, RunError, SampleError
from lfpc.samples import Sample, read_samples, write_samples


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "samples").mkdir()
    picture = tmp_path / "samples/a.png"
    Image.new("RGB", (60, 60), "red").save(picture)
    samples = [Sample(id=name, image=picture, question="Which?", answer="A") for name in "ab"]
    write_samples(samples, tmp_path / "samples")
    return tmp_path / "samples"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(say=lambda question, turn, pictures: "<answer>A</answer>") as one:
        yield one


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail; returns its one sentence."""

    def run(*words: object) -> str:
        capsys.readouterr()
        assert cli.main([str(word) for word in words]) == 1
        heard = capsys.readouterr().err.splitlines()
        assert len(heard) == 1, heard
        return heard[0]

    return run


def asked(data: Path, out: Path, server: ChatServer) -> list[str]:
    words = ["eval", str(data), "--out", str(out), "--base-url", server.base_url]
    return [*words, "--model", "scripted", "--budget", "4", "--probes", "own"]


# --- the caller's language


@pytest.mark.parametrize(
    ("sentence", "words", "typed"),
    [
        ("`max_new_tokens` must be", "eval", "--max-new-tokens must be"),
        ("`ladder[1]` is 4", "select", "--ladder is 4"),
        ("`crop.min_tokens` is 4", "eval", "--crop-tokens is 4"),
        ("`crop.min_tokens` is 4", "train stage1", "--crop.min-tokens is 4"),
        ("`sampling.top_p` is 1", "select", "--top-p is 1"),
        ("`timeout_s` is 1", "eval", "--timeout is 1"),
        ("`model` is a", "eval --checkpoint b", "--checkpoint is a"),
        ("`model` is a", "eval --model b", "--model is a"),
        ("run `lfpc select` or `--x`", "eval", "run `lfpc select` or `--x`"),
    ],
)
def test_a_setting_is_named_as_it_is_typed(sentence, words, typed):
    assert as_typed(sentence, words.split()) == typed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train stage1 --group-size 1", "--group-size must be at least 2, got 1"),
        ("train stage1 --micro-batch 0", "--micro-batch must be at least 1, got 0"),
        ("train stage1 --temperature 0", "--temperature must be above 0, got 0.0"),
        ("train stage1 --crop.min-tokens 0", "--crop.min-tokens must be at least 1"),
        ("train stage1", "give --data, the samples folder to train on"),
        ("train stage1 --data samples", "give --init, the checkpoint to start from"),
        ("select samples --out out --votes 0", "--votes must be at least 1, got 0"),
        ("eval samples --out out --temperature -1", "--temperature must be at least 0, got -1.0"),
        ("eval samples --out out --timeout 0", "--timeout must be above 0, got 0.0"),
        ("eval samples --out out --probes", "--probes names none"),
        ("eval samples --out file --repeats 0", "--repeats must be at least 1"),
        ("eval samples --out file --timed -1", "--timed must be at least 0, got -1"),
        ("eval samples --out file", "file: a file is in the way; name another folder"),
        ("eval samples --out file/deep", "file/deep: a file is in the way; name another folder"),
    ],
)
def test_the_command_line_names_options(data, tmp_path, monkeypatch, said, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    served = [] if words.startswith("train") else ["--base-url", "http://127.0.0.1:9/v1"]
    heard = said(*words.split(), *served, *(["--model", "m"] if served else []))
    assert says in heard
    assert {path.name for path in tmp_path.iterdir()} == {"samples", "file"}


# --- folders


@pytest.mark.parametrize("place", ["samples", "out", "out/4/own"])
def test_a_report_is_not_written_into_samples_or_a_run(data, tmp_path, server, said, place):
    out = tmp_path / "out"
    assert cli.main(asked(data, out, server)) == 0
    before = sorted(tmp_path.rglob("*"))
    heard = said("report", out, "--out", tmp_path / place)
    assert f"{tmp_path / place} holds " in heard
    assert "name a new folder" in heard
    assert "--pictures must be at least 0" in said(
        "report", out, "--out", tmp_path / "new", "--pictures", "-1"
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_an_old_format_is_refused_before_anything_is_asked(
    data, tmp_path, server, said
):
    old = tmp_path / "out/16/own"
    old.mkdir(parents=True)
    (old / "config.json").write_text('{"budget": 16}')
    (old / "environment.json").write_text('{"lfpc": "0.1"}')
    heard = said(*asked(data, tmp_path / "out", server))
    assert "was written by lfpc 0.1 in format 1" in heard
    assert "--out" not in heard
    assert server.requests == []


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("results.json", "{", "results.json is unreadable"),
        ("results.json", "[]", "results.json does not have format 2"),
        ("results.json", "[" * 100_000, "results.json is unreadable"),
        ("4/own/environment.json", "{", "environment.json is unreadable"),
        ("4/own/environment.json", "[]", "environment.json is not a JSON object"),
        ("4/own/config.json", "[]", "config.json is not a JSON object"),
    ],
)
def test_a_damaged_file_of_a_run_is_named_before_a_probe_asks(
    data, tmp_path, server, said, file, content, sentence
):
    assert cli.main(asked(data, tmp_path / "out", server)) == 0
    asked_before = len(server.requests)
    (tmp_path / "out" / file).write_text(content)
    assert sentence in said("probe", tmp_path / "out", "--probes", "repeat")
    assert len(server.requests) == asked_before


def test_repeats_have_lines_of_their_own(data, tmp_path, server, capsys):
    words = [*asked(data, tmp_path / "out", server), "--repeats", "2", "--temperature", "1"]
    assert cli.main(words) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(set(lines)) == len(lines)
    assert sum("own-repeat1" in line for line in lines) == 1


def test_a_run_is_looked_for_below_the_folder(data, tmp_path, server):
    assert cli.main(asked(data, tmp_path / "out", server)) == 0
    with pytest.raises(RunError, match=r"no config\.json; runs below it: .*out/4/own$"):
        lfpc.open_run(tmp_path / "out")
    assert sorted(lfpc.read_records(str(tmp_path / "out/4/own"))) == ["a", "b"]


def test_a_checkpoint_is_recorded_by_its_whole_path(tmp_path, monkeypatch):
    from lfpc.cli.evaluating import Eval

    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    config, _ = Eval(checkpoint=Path("here"), out=Path("out")).asked()
    assert config.model == str(tmp_path / "here")


def test_a_checkpoint_without_settings_is_told(tmp_path, caplog):
    from lfpc.policies.settings import checkpoint_settings

    assert checkpoint_settings(tmp_path).max_new_tokens == 512
    assert "has no lfpc.json" in caplog.text
    assert "at most 512 tokens" in caplog.text


# --- Python


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"budget": "25"}, "`budget` must be a whole number, got '25'"),
        ({"budget": 25.0}, "`budget` must be a whole number, got 25.0"),
        ({"budget": [16, 25]}, r"`budget` is one whole number, got \[16, 25\]; call once for each"),
        ({"max_turns": "3"}, "`max_turns` must be a whole number"),
        ({"repeats": 2}, "`repeats` must be at least 1, and several need a `temperature` above 0"),
        ({"seed": "x"}, "seed: 'x' should be a valid integer"),
        ({"policy": "checkpoint"}, "result of lfpc.load_policy or lfpc.served_policy, got 'check"),
        ({"samples": [{"id": "a"}]}, r"samples\[0\] is no Sample but dict"),
        ({"samples": []}, "no samples"),
    ],
)
def test_evaluate_refuses_in_python_words(data, tmp_path, server, changes, says):
    policy = lfpc.served_policy(server.base_url, "scripted")
    given: dict[str, Any] = {"policy": policy, "samples": data, "out": tmp_path / "out"}
    with pytest.raises(LfpcError, match=says):
        lfpc.evaluate(**(given | changes), progress=False)
    assert server.requests == []


def test_other_functions_refuse_in_python_words(data, tmp_path, server):
    policy = lfpc.served_policy(server.base_url, "scripted")
    train: dict[str, Any] = {"data": data, "init": "init", "out": tmp_path / "out"}
    for call, says in (
        (
            lambda: lfpc.train("stage1", **train, stepz=1),
            "unknown key 'stepz'; did you mean 'steps",
        ),
        (lambda: lfpc.train("stage1", **train, steps="2"), "steps: '2' should be a valid integer"),
        (lambda: lfpc.train("stage1", **train, group_size=1), "`group_size` must be at least 2"),
        (lambda: lfpc.select(policy, data, tmp_path, ladder="25"), "ladder: '25' should be"),
        (lambda: lfpc.select("m", data, tmp_path), "must be the result of lfpc.load_policy"),
        (lambda: lfpc.served_policy(server.base_url, "m", temperature="1"), "temperature: '1' sho"),
        (lambda: lfpc.served_policy(server.base_url, "m", retries=-1), "`retries` must be at lea"),
    ):
        with pytest.raises(LfpcError, match=says):
            call()
    assert not (tmp_path / "out").exists()


def test_samples_may_come_from_a_generator_and_have_distinct_ids(data, tmp_path, server):
    samples = read_samples(data)
    policy = lfpc.served_policy(server.base_url, "scripted")
    found = lfpc.evaluate(policy, iter(samples), tmp_path / "out", budget=4, progress=False)
    assert found.summary["n"] == 2
    before = (data / "samples.jsonl").read_bytes()
    for wrong, says in (
        ([samples[0], replace(samples[1], id="a")], "sample id 'a' is used twice"),
        ([json.loads(before.splitlines()[0])], r"samples\[0\] is no Sample but dict"),
    ):
        with pytest.raises(SampleError, match=says):
            write_samples(wrong, data)
    assert (data / "samples.jsonl").read_bytes() == before


# --- a folder that is not there


@pytest.fixture
def stage1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with a checkpoint's folder, below the working directory."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "out/stage1/checkpoints/step-000080").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return Path("out/stage1")


CHECKPOINT_VERBS = (
    "eval samples --out new --checkpoint",
    "eval samples --out new --engine vllm --checkpoint",
    "select samples --out new --checkpoint",
    "ask samples/a.png What? --checkpoint",
    "serve --port 0 --checkpoint",
    "annotate samples --checkpoint",
    "train stage1 --data samples --out new --init",
    "train stage1 --engine verl --data samples --out new --init",
    "mini measure --checkpoint",
    "demo --out new --base",
    "mini study --out new --base",
    "mini pretrain --out new --init",
    "merge --out new",
    "card",
)
"""Every command that takes a checkpoint, up to its name."""


@pytest.mark.parametrize("verb", CHECKPOINT_VERBS)
@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("out/stage1/chekpoints/step-000080", "out/stage1/checkpoints/step-000080"),
        ("out/stge1", "out/stage1"),  # the form of a hub id
    ],
)
def test_a_mistyped_checkpoint_is_a_folder_that_is_not_there(
    data: Path, stage1: Path, said: Callable[..., str], verb: str, typed: str, near: str
) -> None:
    heard = said(*verb.split(), typed)
    assert f"{typed}: no such folder; did you mean {near}?" in heard
    assert "hf download" not in heard
    assert not Path("new").exists()


def test_a_checkpoint_in_the_form_of_a_hub_id_may_be_one(
    stage1: Path, said: Callable[..., str]
) -> None:
    heard = said("ask", "a.png", "What?", "--checkpoint", "Qwen/Some-Model")
    assert heard.endswith(
        "Qwen/Some-Model: no such folder (as a hub id it is not in the Hugging Face cache; "
        "download it with `hf download Qwen/Some-Model`)"
    )
    heard = said("ask", "a.png", "What?", "--checkpoint", "otu/stage1")
    assert "did you mean out/stage1?" in heard
    for path in ("./Some-Model", "Some-Model", "a/b/c", "Qwen/.hidden"):
        assert "hub id of the form owner/name" in said(
            "ask", "a.png", "What?", "--checkpoint", path
        )


def test_other_mistyped_folders_name_the_nearest(
    data: Path, stage1: Path, said: Callable[..., str]
) -> None:
    for words in ("check smples", "hardest smples --runs out/stge1 --out new"):
        assert "smples: no such folder; did you mean samples?" in said("data", *words.split())
    for words in ("report out/stge1", "probe out/stge1", "compare out/stge1 out/stage1"):
        assert "out/stge1: no such folder; did you mean " in said(*words.split())
