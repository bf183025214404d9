"""One command over several benchmarks, budgets and probes, with a served model; and what can be
done with its folder after."""

import base64
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from chat_server import ChatServer
from other_lock import held
from PIL import Image

from lfpc import cli
from lfpc.evaluation.places import place_at, place_records
from lfpc.selection.config import SelectConfig
from lfpc.storage.files import FolderLock
from lfpc.storage.runs import Kind, RunFolder

SIZE = (200, 150)
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, '
    "28]}}</tool_call>"
)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Four questions of V* with boxes, and one of HR-Bench 4K in its four rotations, in the
    published layouts."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(4):
        attributes = folder / "vstar" / ("relative_position" if i == 3 else "direct_attributes")
        attributes.mkdir(parents=True, exist_ok=True)
        noise(i).save(attributes / f"{i}.jpg")
        row = {
            "question": f"Colour {i}?",
            "options": ["The car is red.", "The car is blue."],
            "bbox": [[20, 30, 40, 30]],
            "target_object": ["car"],
        }
        (attributes / f"{i}.json").write_text(json.dumps(row))
    noise(9).save(folder / "shown.png")
    picture = base64.b64encode((folder / "shown.png").read_bytes()).decode()
    (folder / "hrbench-4k").mkdir()
    with (folder / "hrbench-4k" / "hr_bench_4k.tsv").open("w", newline="") as out:
        table = csv.writer(out, delimiter="\t")
        table.writerow(
            [
                "index",
                "question",
                "answer",
                "category",
                "A",
                "B",
                "C",
                "D",
                "cycle_category",
                "image",
            ]
        )
        for cycle in range(4):
            options = [str((n + cycle) % 4) for n in range(4)]
            table.writerow(
                [
                    cycle,
                    "How many?",
                    "ABCD"[options.index("0")],
                    "single",
                    *options,
                    str(cycle),
                    picture,
                ]
            )
    return folder


def say(question, turn, pictures):
    """A crop, then always A."""
    return "<answer>A</answer>" if turn else CALL


def command(data: Path, out: Path, server: ChatServer, *more: str) -> list[str]:
    asked = [
        "--base-url",
        server.base_url,
        "--model",
        "scripted",
        "--concurrency",
        "4",
        "--crop-tokens",
        "1",
        "16",
    ]
    return [
        "eval",
        "--tasks",
        "vstar,hrbench-4k",
        "--data",
        str(data),
        "--out",
        str(out),
        "--budget",
        "4,16",
        *asked,
        *more,
    ]


@pytest.mark.slow
def test_benchmarks_budgets_and_probes_in_one_command(tmp_path, data, capsys):
    out = tmp_path / "run"
    with ChatServer(say=say) as server:
        assert cli.main(command(data, out, server, "--probes", "noise,truth", "--timed", "2")) == 0
        lines = capsys.readouterr().out.splitlines()
        asked = len(server.requests)
        assert cli.main(command(data, out, server, "--probes", "noise,truth", "--timed", "2")) == 0
        assert len(server.requests) == asked  # nothing is asked again, nothing timed again
        assert capsys.readouterr().out.splitlines() == lines
    tasks = [
        f"{task}/{budget}/{probe}"
        for task in ("vstar", "hrbench-4k")
        for budget in (4, 16)
        for probe in ("own", "noise", "truth")
    ]
    tasks = [task for task in tasks if not task.startswith("hrbench") or not task.endswith("truth")]
    table = json.loads((out / "results.json").read_text())
    assert sorted(table["results"]) == sorted(tasks)
    assert (
        table["results"]["hrbench-4k/16/own"]["accuracy,none"] == 0.25
    )  # A is right in one of four rotations
    assert table["results"]["hrbench-4k/16/own"]["all_rotations_right,none"] == 0
    assert table["results"]["hrbench-4k/16/own"]["clusters,none"] == 1
    assert table["n-samples"]["vstar/4/own"] == {"original": 4, "effective": 4}
    config = table["configs"]["vstar/4/truth"]
    assert (config["budget"], config["probe"], config["protocol"], config["coordinates"]) == (
        4,
        "truth",
        "qwen2_5_vl",
        "mapped",
    )
    assert (config["crop"]["max_tokens"], config["data"]["source"], config["data"]["samples"]) == (
        16,
        "vstar",
        4,
    )
    assert "truth: left out, no sample has boxes" in lines
    places = [f"{task}/{budget}" for task in ("vstar", "hrbench-4k") for budget in (4, 16)]
    assert lines[-5] == f"results: {out / 'results.json'}"
    assert [line.split(": ")[0] for line in lines[-4:]] == places
    assert sum("Too few questions to say" in line for line in lines) == 4  # said once, at the end
    assert any(
        line.startswith("vstar/16/own: accuracy ") and line.endswith("decided by rule 100.0%")
        for line in lines
    )
    assert any(
        line.startswith("as played, 4 at once: median ") and line.endswith(" questions per second")
        for line in lines
    )
    assert any(line.startswith("alone: median ") for line in lines)
    place = place_at(out / "vstar" / "16", out)
    assert (place.own.config.task, place.budget, place.own.config.budget) == (
        "vstar",
        "vstar/16",
        16,
    )
    record = place_records(place)["own"][0]
    assert (record.budget, record.concurrency) == (16, 4)
    summary = table["conditions"][""]["vstar/16"]["summary"]
    assert summary["per_second"] > 0
    assert summary["timings"][0]["questions"] == 2


def test_questions_are_timed_in_a_later_call_too(tmp_path, data):
    out = tmp_path / "run"
    with ChatServer(say=say) as server:
        assert cli.main(command(data, out, server, "--probes", "own")) == 0
        asked = len(server.requests)
        assert cli.main(command(data, out, server, "--probes", "own", "--timed", "2")) == 0
        assert len(server.requests) > asked
    conditions = json.loads((out / "results.json").read_text())["conditions"][""]
    assert {place["summary"]["timings"][0]["questions"] for place in conditions.values()} == {2}


@pytest.mark.slow
def test_the_folder_can_be_probed_compared_and_rescored(tmp_path, data, capsys):
    out = tmp_path / "run"
    with ChatServer(say=say) as server:
        assert cli.main(command(data, out, server, "--probes", "own")) == 0
        asked = len(server.requests)
        assert (
            cli.main(["probe", str(out), "--probes", "none,repeat", "--replay"]) == 0
        )  # where the model was served is known
        assert (
            len(server.requests) == asked + 2 * 2 * 8
        )  # two budgets, two probes, and of eight questions what follows the crop
    before = json.loads((out / "results.json").read_text())
    lost = before["conditions"][""]["vstar/16"]["probes"]
    assert list(lost) == ["none (replay)", "repeat (replay)"]
    capsys.readouterr()
    assert cli.main(["rescore", str(out)]) == 0
    assert "vstar/16/none-replay: accuracy " in capsys.readouterr().out
    after = json.loads((out / "results.json").read_text())
    for part in ("results", "configs", "n-samples"):
        assert {task: after[part][task] for task in before[part]} == before[part]
    assert after["configs"]["vstar/16/none-replay"]["run"]["replay"]
    assert (
        cli.main(["compare", str(out), str(out), "--replay", "--out", str(tmp_path / "c.json")])
        == 0
    )
    found = json.loads((tmp_path / "c.json").read_text())
    assert set(found) == {"vstar/4", "vstar/16", "hrbench-4k/4", "hrbench-4k/16"}
    assert [row["metric"] for row in found["vstar/4"]["tests"]] == [
        "accuracy",
        "lost under none",
        "lost under repeat",
    ]


@pytest.mark.slow
def test_every_question_is_asked_k_times_and_a_repeat_that_is_there_is_not_asked_again(
    tmp_path, data, capsys
):
    def sometimes(question, turn, pictures):
        return f"<answer>{'A' if len(server.requests) % 2 else 'B'}</answer>"

    out = tmp_path / "run"
    more = ("--probes", "own", "--temperature", "1", "--repeats", "3", "--sampling-seed", "5")
    with ChatServer(say=sometimes) as server:
        asked = [*command(data, out, server, *more), "--concurrency", "1"]
        assert cli.main(asked) == 0
        assert len(server.requests) == 2 * 3 * 8
        # a seed per repeat and question, the same at both budgets
        assert len({request["seed"] for request in server.requests}) == 3 * 8
        assert cli.main(asked) == 0
        assert len(server.requests) == 2 * 3 * 8
        assert cli.main([*asked, "--temperature", "0"]) == 1
    assert "several need a --temperature above 0" in capsys.readouterr().err
    results = json.loads((out / "results.json").read_text())["results"]
    runs = [results[f"vstar/16/own{repeat}"] for repeat in ("", "-repeat1", "-repeat2")]
    assert runs[0]["avg@k,none"] == pytest.approx(sum(run["accuracy,none"] for run in runs) / 3)
    assert (runs[0]["k,none"], runs[0]["clusters,none"]) == (3, 4)
    assert runs[0]["avg@k_low,none"] < runs[0]["avg@k,none"] < runs[0]["avg@k_high,none"]
    assert "avg@k,none" not in runs[1]
    own = place_records(place_at(out / "vstar" / "16"))["own"]
    assert sum(record.correct for record in own) / 4 == pytest.approx(runs[0]["avg@k,none"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "either a samples folder, or --tasks and --data"),
        (["--tasks", "vstar"], "either a samples folder, or --tasks and --data"),
        (
            ["folder", "--tasks", "vstar", "--data", "data"],
            "either a samples folder, or --tasks and --data",
        ),
        (["--tasks", "vstar,other", "--data", "data"], "unknown benchmark 'other'"),
        (["--tasks", "vstar", "--data", "nowhere"], "nowhere: no such folder"),
        (["folder", "--budget", "many"], "--budget must be whole numbers of 1 or more, got many"),
        (
            ["folder", "--protocol", "ergo", "--coords", "as-released", "--budget", "0"],
            "--budget must be whole numbers",
        ),
        (
            ["folder", "--protocol", "qwen2_5_vl", "--coords", "as-released"],
            "qwen2_5_vl has no --coords as-released",
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, options, says):
    monkeypatch.chdir(tmp_path)
    assert (
        cli.main(
            [
                "eval",
                *options,
                "--out",
                "out",
                "--base-url",
                "http://127.0.0.1:1/v1",
                "--model",
                "m",
            ]
        )
        == 1
    )
    heard = capsys.readouterr().err
    assert says in heard
    assert len(heard.splitlines()) == 1


@pytest.mark.parametrize("options", [["--max-turns", "0"], ["--crop-tokens", "50", "25"]])
def test_values_out_of_range_are_named_as_they_are_typed(tmp_path, data, capsys, options):
    words = ["eval", "--tasks", "vstar", "--data", str(data), "--base-url", "http://127.0.0.1:9/v1"]
    words += ["--model", "m", "--budget", "16", "--out", str(tmp_path / "out"), *options]
    assert cli.main(words) in (1, 2)
    assert options[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_evaluation_does_not_write_into_a_run_of_another_kind_or_a_study(tmp_path, data, capsys):
    words = ["eval", "--tasks", "vstar", "--data", str(data), "--base-url", "http://127.0.0.1:9/v1"]
    words += ["--model", "m", "--budget", "16", "--out"]
    RunFolder.open(tmp_path / "selection", Kind.SELECTION, SelectConfig()).close()
    study = {"format": 2, "conditions": {"stage1": {}}}
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "results.json").write_text(json.dumps(study))
    for name, says in (("selection", "is a run of the kind selection"), ("study", "stage1")):
        assert cli.main([*words, str(tmp_path / name)]) == 1
        heard = capsys.readouterr().err
        assert says in heard
        assert "--out" in heard


@pytest.mark.slow
def test_two_evaluations_do_not_write_one_results_file(tmp_path, data):
    out = tmp_path / "out"
    with ChatServer(say=say) as server, FolderLock(out):
        other = subprocess.run(
            [sys.executable, "-m", "lfpc", *command(data, out, server)],
            capture_output=True,
            text=True,
        )
        assert other.returncode == 1
        assert f"{out} is in use: another process writes there" in other.stderr
        assert server.requests == []


@pytest.mark.parametrize("folder", ["vstar/16/noise", "hrbench-4k/16/own"])
def test_an_evaluation_finds_a_probe_in_use_before_it_asks_anything(tmp_path, data, capsys, folder):
    out = tmp_path / "out"
    with ChatServer(say=say) as server, held(out / folder):
        assert cli.main(command(data, out, server)) == 1
        assert f"{out / folder} is in use: another process writes there" in capsys.readouterr().err
        assert server.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("held", ["noise", "truth", ".", ".."])
def test_a_probe_finds_a_folder_in_use_before_it_asks_anything(tmp_path, data, held):
    out = tmp_path / "out"
    with ChatServer(say=say) as server:
        assert cli.main(command(data, out, server)) == 0
        before = server.requests.copy()
        place = next(folder.parent for folder in sorted(out.rglob("own")))
        with FolderLock((place / held).resolve()):
            other = subprocess.run(
                [sys.executable, "-m", "lfpc", "probe", str(place), "--probes", "other", "truth"]
                + (["noise"] if held == "noise" else []),
                capture_output=True,
                text=True,
            )
        assert other.returncode == 1
        assert "is in use: another process writes there" in other.stderr
        assert server.requests == before


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["rescore"], ["probe", "--probes", "noise"]])
def test_an_evaluation_that_is_still_written_is_neither_rescored_nor_probed(tmp_path, data, verb):
    out = tmp_path / "out"
    with ChatServer(say=say) as server:
        assert cli.main(command(data, out, server)) == 0
        before = server.requests.copy()
        place = next(folder.parent for folder in sorted(out.rglob("own")))
        with FolderLock(place / "own"):
            other = subprocess.run(
                [sys.executable, "-m", "lfpc", verb[0], str(place), *verb[1:]],
                capture_output=True,
                text=True,
            )
        assert other.returncode == 1
        assert f"{place / 'own'} is in use: another process writes there" in other.stderr
        assert server.requests == before


def test_a_probe_that_no_task_can_show_is_refused_before_anything_is_asked(tmp_path, data, capsys):
    with ChatServer(say=say) as server:
        asked = command(data, tmp_path / "run", server, "--probes", "truth")
        asked[asked.index("vstar,hrbench-4k")] = "hrbench-4k"
        assert cli.main(asked) == 1
    assert "the probe 'truth' needs samples with boxes" in capsys.readouterr().err
    assert server.requests == []
