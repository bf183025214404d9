"""`lfpc serve` asked by other people's clients and harnesses, exported files read by other people's
tools, and metrics kept by other people's trackers, each in its own process with its real package.
`make test-clients` runs these."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny
from live_server import CONFIG, looks_at, scripted_model
from live_server import listening as listening_at
from PIL import Image
from test_serve_completions import data_uri, png

import lfpc
from environments import interpreter, made
from lfpc import cli
from lfpc.boxes import Box
from lfpc.evaluation.run import evaluate_probe
from lfpc.images import upright_size
from lfpc.policies.qwen.checkpoint import save_checkpoint
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.samples import Sample, write_samples

pytestmark = [
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.skipif(
        not made("clients"),
        reason="the clients are in .venv-clients, which is missing or old: make test-clients",
    ),
]
HERE = Path(__file__).parent / "clients"
SAID = "[(64, 64, 64), (64, 64, 64)]"
"""The scripted model's answer to `png()`."""
KEYS = {"OPENAI_API_KEY": "none", "LFPC_API_KEY": "none"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
NPM_OPENAI = "openai@7.55.0"
VLMEVALKIT = "https://github.com/open-compass/VLMEvalKit"
VLMEVALKIT_COMMIT = "e8e78f05f3080fe28154f2130321f17951c3be94"


def said_by(command, *, given="", **environment) -> str:
    """What `command` prints; a failure shows what it complained about."""
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        input=given,
        env={**outside, **KEYS, **OFFLINE, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def found_by(name: str, *words, given="", **environment) -> Any:
    """What the program `clients/with_NAME.py` found."""
    command = [interpreter("clients"), HERE / f"with_{name}.py", *words]
    return json.loads(said_by(command, given=given, **environment).splitlines()[-1])


@pytest.fixture
def address(tmp_path):
    with listening_at(scripted_model(), tmp_path / "served") as served:
        yield f"{served}/v1"


def test_the_official_python_client_asks_at_once_and_streams(address):
    found = found_by("openai", address, "script", given=data_uri(png()))
    assert found == {"answers": [SAID] * 4, "model": "script", "code": "model_not_found"}


def test_litellm_gets_answer_and_reasoning(address):
    found = found_by("litellm", address, "script", given=data_uri(png()))
    assert found["answers"] == [SAID] * 2
    assert found["reasoning"].count("<tool_call>") == 2


def test_langchain_gets_answer_and_usage(address):
    found = found_by("langchain", address, "script", given=data_uri(png()))
    assert found == {"answers": [SAID] * 2, "read": 300}


@pytest.mark.parametrize("options", [[], ["--no-stream"]])
def test_llm_asks_about_a_file(address, tmp_path, options):
    (tmp_path / "p.png").write_bytes(png())
    model = {"model_id": "lfpc", "model_name": "script", "api_base": address, "vision": True}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML
    program = interpreter("clients").with_name("llm")
    command = [program, "-m", "lfpc", "Which colour?", "-a", tmp_path / "p.png", *options]
    assert said_by(command, LLM_USER_PATH=str(tmp_path)).strip() == SAID


def test_the_official_javascript_client_asks_and_streams(address):
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("node and npm are not installed: apt-get install nodejs npm")
    packages = interpreter("clients").parents[1] / "npm"
    if not (packages / "node_modules" / "openai").is_dir():
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", packages]
        packages.mkdir(exist_ok=True)
        said_by([*install, NPM_OPENAI])
    command = ["node", HERE / "with_npm.mjs", address, "script", packages]
    found = json.loads(said_by(command, given=data_uri(png())))
    assert found == {"answers": [SAID] * 2}


def test_inspect_scores_a_samples_folder_as_lfpc_eval(tmp_path):
    def grey(number: int) -> Path:
        path = tmp_path / "data" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (200, 150), (number, number, number)).save(path)
        return path

    seen = [f"[({n}, {n}, {n}), ({n}, {n}, {n})]" for n in range(0, 120, 10)]
    answers = ["none" if number % 3 == 0 else said for number, said in enumerate(seen)]
    samples = [
        Sample(id=f"s{n}", image=grey(n), question="Which colour?", answer=answer)
        for n, answer in zip(range(0, 120, 10), answers, strict=True)
    ]
    folder = write_samples(samples, tmp_path / "data").parent
    records = evaluate_probe(
        ScriptedPolicy(looks_at), samples, CONFIG, tmp_path / "run", progress=False
    )
    with listening_at(scripted_model(), tmp_path / "served") as served:
        found = found_by("inspect", f"{served}/v1", "script", folder, tmp_path / "logs")
    assert found["status"] == "success"
    assert found["right"] == {record.sample.id: record.correct for record in records}
    assert sum(found["right"].values()) == 8


@pytest.fixture
def greys(tmp_path):
    """A folder of grey pictures, and the scripted model's answers to them."""
    folder = tmp_path / "greys"
    folder.mkdir()
    for grey in range(0, 120, 40):
        Image.new("RGB", (200, 150), (grey, grey, grey)).save(folder / f"{grey:03}.png")
    return folder, [f"[({n}, {n}, {n}), ({n}, {n}, {n})]" for n in range(0, 120, 40)]


def test_lmms_eval_gets_the_answer_about_each_picture(address, greys):
    folder, said = greys
    found = found_by("lmms_eval", address, "script", folder)
    assert found == {"simple": said, "chat": said}


def test_vlmevalkit_gets_the_answer_about_each_picture(address, greys):
    folder, said = greys
    found = found_by("vlmevalkit", address, "script", folder, vlmevalkit())
    assert found == {"at once": said, "streamed": said}


def vlmevalkit() -> Path:
    """A checkout of VLMEvalKit, which pip does not find; skips the test where it cannot be
    fetched."""
    checkout = interpreter("clients").parents[1] / f"VLMEvalKit-{VLMEVALKIT_COMMIT[:8]}"
    git = ["git", "-C", checkout]
    if not (checkout / "vlmeval").is_dir():
        said_by(["git", "init", "--quiet", checkout])
        fetch = [*git, "fetch", "--quiet", "--depth", "1", VLMEVALKIT, VLMEVALKIT_COMMIT]
        try:
            subprocess.run(fetch, check=True, capture_output=True, timeout=60)
        except subprocess.SubprocessError:
            pytest.skip(f"{VLMEVALKIT} cannot be reached")
        said_by([*git, "checkout", "--quiet", VLMEVALKIT_COMMIT])
    return checkout


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_keeps_a_run_that_was_continued(tmp_path, name):
    environment = {
        "PYTHONPATH": str(Path(lfpc.__file__).parents[1]),
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "WANDB_MODE": "offline",
    }
    for step in (1, 2):
        found_by("tracker", name, tmp_path, step, **environment)
    rows = found_by("tracker", name, tmp_path, **environment)
    assert {row["run"] for row in rows} == {"lfpc-abc"}
    kept = {row["step"]: {} for row in rows}
    for row in rows:
        kept[row["step"]] |= row
    assert {step: (row["reward"], row["loss"]) for step, row in kept.items()} == {
        1: (0.25, -0.5),
        2: (0.5, -0.5),
    }
    assert not any("iou" in row for row in rows)
    captions = [[row[f"episode/{n}"]["caption"] for n in (0, 1)] for row in kept.values()]
    assert captions == [["Which? \u2192 look", "<answer>7</answer>"]] * 2
    pictures = sorted(upright_size(path) for path in tmp_path.rglob("*.png"))
    assert pictures == [(56, 28)] * 2 + [(112, 84)] * 2


def test_every_tracker_keeps_every_step_of_a_run_that_was_continued(tmp_path):
    save_checkpoint(tiny.model(), tiny.tokenizer(), tmp_path / "init")
    folder = tmp_path / "data"
    folder.mkdir()
    write_samples([tiny.sample(folder, n, answer=str(n)) for n in range(4)], folder)
    options = {"--data": folder, "--init": tmp_path / "init", "--out": tmp_path / "run"}
    options |= {"--prompts-per-step": 2, "--group-size": 2, "--max-turns": 2, "--device": "cpu"}
    options |= {"--max-new-tokens": 8, "--crop.min-tokens": 4, "--crop.max-tokens": 16}
    words = [word for pair in options.items() for word in pair]
    environment = {
        "PYTHONPATH": str(Path(lfpc.__file__).parents[1]),
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "WANDB_MODE": "offline",
    }
    command = [interpreter("clients"), "-m", "lfpc", "train", "stage1", "--wandb", "--trackio"]
    for steps in (2, 3):
        said_by([*command, *words, "--steps", steps], **environment)
    metrics = {
        row["step"]: {name: row[name] for name in row if isinstance(row[name], int | float)}
        for row in map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    }
    assert list(metrics) == [1, 2, 3]
    for name in ("wandb", "trackio", "tensorboard"):
        rows = found_by("tracker", name, tmp_path / "run", **environment)
        assert len({row.get("run") for row in rows}) == 1
        kept = {step: {} for step in metrics}
        for row in rows:
            kept[row["step"]] |= row
        for step, numbers in metrics.items():
            found = {key: kept[step].get(key) for key in numbers}
            assert found == pytest.approx(numbers, rel=1e-6), (name, step)


def test_pycocotools_reads_exported_boxes(tmp_path, picture):
    boxes = ((Box(0.25, 0.5, 0.5, 0.75), Box(0, 0.25, 0.5, 1)),)
    sample = Sample(id="s", image=picture(), question="Which?", answer="K", boxes=boxes)
    folder = write_samples([sample], tmp_path / "data").parent
    out = tmp_path / "boxes.json"
    assert cli.main(["data", "export-boxes", str(folder), str(out), "--format", "coco"]) == 0
    found = found_by("pycocotools", out)
    (drawn,) = found["boxes"].values()
    # x, y, width, height in pixels of 400 x 300
    assert drawn == [[100, 150, 100, 75], [0, 75, 200, 225]]
    assert found["categories"] == ["B1", "B2"]
