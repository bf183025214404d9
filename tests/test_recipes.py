"""The recipes of the docs: every command is one that exists, and those that need no GPU are run
against a scripted server or the miniature, as they stand there.
"""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import published
import pytest
from chat_server import ChatServer
from PIL import Image

from environments import ROOT
from lfpc import cli
from lfpc.boxes import Box
from lfpc.errors import LfpcError
from lfpc.metrics.power import smallest_difference
from lfpc.published.index import PUBLISHED
from lfpc.samples import read_samples, write_samples
from lfpc.training.verl.estimate import READING
from lfpc.training.verl.shape import SHAPES

PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
RECIPES = ("looking", "benchmarks", "train-7b", "train-one-gpu", "own-data")
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 56, 56]}}'
    "</tool_call>"
)


def commands(page):
    """The `lfpc` commands in the code blocks of a page, as argument lists."""
    found = []
    text = (ROOT / page).read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language not in ("", "bash", "sh"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("lfpc "):
                found.append(shlex.split(line, comments=True)[1:])
    return found


def whole(words):
    """Whether a command can be run as it stands: no ellipsis, no choice of words."""
    return not any("..." in word or "|" in word or word.startswith("[") for word in words)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_docs_is_one_that_exists(page):
    from lfpc.cli.training import Train
    from lfpc.training.options import parsed
    from lfpc.training.presets import preset

    for words in filter(whole, commands(page)):
        try:
            verb = cli._parse(words)
            if isinstance(verb, Train):
                parsed(preset(verb.preset), verb.options, prog="lfpc train")
        except (SystemExit, LfpcError) as error:
            pytest.fail(f"{page}: lfpc {shlex.join(words)}: {error!r}")


def test_every_recipe_holds_commands():
    assert all(len(commands(f"docs/{name}.md")) > 2 for name in RECIPES)
    assert len(commands("README.md")) > 4


def test_the_numbers_of_questions_are_those_of_the_formula():
    page = (ROOT / "docs" / "looking.md").read_text()
    rows = re.findall(r"^\| (\d+) points \| (.*) \|$", page, re.MULTILINE)
    assert [drop for drop, _ in rows] == ["3", "5", "10"]
    for drop, cells in rows:
        for discordance, cell in zip((0.05, 0.1, 0.2, 0.3), cells.split(" | "), strict=True):
            if cell == "\N{EN DASH}":
                assert discordance < int(drop) / 100
                continue
            n = int(cell.replace(",", ""))
            least = [smallest_difference(m, discordance=discordance) for m in (n - 1, n)]
            assert least[0] > int(drop) / 100 >= least[1]
    assert (
        f"show {100 * smallest_difference(191, discordance=0.1):.1f} points if 10 % differ" in page
    )


def test_the_tables_of_downloads_are_what_the_instructions_say():
    for page in ("benchmarks", "train-7b"):
        text = (ROOT / "docs" / f"{page}.md").read_text()
        for name, hub, size in re.findall(
            r"^\| `([\w-]+)`[^|]* \| ([^|`]+/[^|]+) \|[^|]*\| ?([^|]*) \|$", text, re.MULTILINE
        ):
            about = f" ({size})" if size else ""
            assert f"Hugging Face data set {hub}{about}:" in PUBLISHED[name].fetch
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    for name, one in PUBLISHED.items():
        if one.score and one.fetch.startswith("Hugging Face"):
            count = re.search(rf"^\| `{name}` \| [^|]+ \| ?(\d*) \|", text, re.MULTILINE)
            assert count, name
            assert count[1] == str(one.questions or "")


def test_the_hours_of_the_pages_are_those_of_the_formula():
    a100, h100 = (READING * peak * 1e12 / (2 * SHAPES["7B"].parameters) for peak in (312, 989))
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert f"{a100:,.0f} on an A100 (312 TFLOP/s), {h100:,.0f} on an H100 (989)" in text
    tokens = (191 + 800 + 800) * 2 * (2 * 1024 + 16384 + 1024)
    assert f"= {tokens / 1e6:.1f} million" in text
    assert f"{tokens / a100 / 3600:.1f} on one A100, {tokens / h100 / 3600:.1f} on one H100" in text
    hours = 15_800 * (16384 + 4096 + 1024 + 256) / (8 * a100) / 3600
    assert f"= {hours:.1f} h." in " ".join((ROOT / "docs" / "train-7b.md").read_text().split())


def say(question, turn, pictures):
    return "<answer>A</answer>" if turn else CALL


def replaced(words, places):
    """A command with the beginning of its words replaced: {beginning: whole new word}."""
    return [
        next((str(new) for old, new in places.items() if word.startswith(old)), word)
        for word in words
    ]


def run(words):
    assert cli.main(words) == 0, shlex.join(words)


def vstar(folder):
    """V* in its published layout, with two questions of each category."""
    for category in ("direct_attributes", "relative_position"):
        place = folder / "vstar" / category
        place.mkdir(parents=True)
        for n in range(2):
            noise = Image.effect_noise((640, 480), 40 + n + 5 * len(category))
            noise.convert("RGB").save(place / f"s{n}.jpg")
            (place / f"s{n}.json").write_text(
                '{"target_object": ["flag"], "bbox": [[10, 20, 30, 40]], '
                f'"question": "Which colour is flag {n}?", "options": ["red", "blue"]}}'
            )


@pytest.mark.slow
def test_looking_leads_from_a_served_model_to_a_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    vstar(tmp_path / "data")
    Image.effect_noise((640, 480), 40).convert("RGB").save("photo.jpg")
    with ChatServer(say=say) as server:
        places = {"http": server.base_url, "/data": tmp_path / "data"}
        places |= dict.fromkeys(("Qwen", "NAME"), "scripted")
        for words in commands("docs/looking.md"):
            if "--gain" in words:  # needs a model's probabilities
                continue
            run(replaced(words, places))
    said = capsys.readouterr().out
    assert "hf download craigwu/vstar_bench" in said
    assert said.count("Too few questions to say: 4 questions about 4 pictures.") >= 2
    assert re.search(r"vstar +16384 +4 +50.0 +75.0 \[.*\] +100.0 +\+0.0 \[", said)
    assert said.count("Too few questions to say what the tool is worth: ") == 2


@pytest.mark.slow
def test_benchmarks_are_run_and_rescored(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    vstar(tmp_path / "data")
    with ChatServer(say=say) as server:
        places = {
            "http": server.base_url,
            "ChenShawn": "scripted",
            "/data": tmp_path / "data",
            "vstar,hrbench": "vstar",
            "runs/other": "runs/deepeyes",
        }
        for words in commands("docs/benchmarks.md"):
            run(replaced(words, places))
    said = capsys.readouterr().out
    assert "vstar/1024/own: accuracy" in said
    assert "chance 0.500" in said


@pytest.mark.slow
def test_own_data_goes_from_a_csv_to_an_evaluation(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "own-data.md").read_text()
    (table,) = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shop = Path("shop")
    (shop / "photos").mkdir(parents=True)
    (shop / "questions.csv").write_text(table)
    for n in (1, 2):
        Image.effect_noise((640, 480), 40 + n).convert("RGB").save(shop / f"photos/000{n}.jpg")
    with ChatServer(say=say) as server:
        for words in commands("docs/own-data.md"):
            run(replaced(words, {"http": server.base_url, "NAME": "scripted"}))
    said = capsys.readouterr().out
    assert "2 samples, 0 rejected" in said
    assert "2 samples, all usable" in said


@pytest.mark.slow
def test_training_on_one_gpu_at_the_size_of_the_miniature(tmp_path, monkeypatch, capsys):
    """The commands of the page, with the miniature's checkpoint, pictures and lengths; boxes are
    those of the scenes, in place of a person's.
    """
    from lfpc.mini.folders import base_checkpoint, write_split

    monkeypatch.chdir(tmp_path)
    write_split(tmp_path / "data" / "train", "train", 4)
    write_split(tmp_path / "data" / "test", "test", 2)
    more = {
        "select": ["--ladder", "256", "25"],
        "train": shlex.split(
            "--steps 2 --prompts-per-step 1 --group-size 2 --max-turns 2 --max-new-tokens 24 "
            "--max-rollout-tokens 600 --crop.max-tokens 25 --crop.min-tokens 16 --log-episodes 4"
        ),
    }
    for words in commands("docs/train-one-gpu.md"):
        if words[0] == "annotate":
            continue
        words = [
            word.replace("models/qwen2.5-vl-3b", str(base_checkpoint())).replace("000080", "000002")
            for word in words
        ]
        run([*words, *more.get(words[0], ())])
    said, lines = capsys.readouterr()
    assert "Too few questions to say" in said or "Never crops" in said
    assert "A: runs/stage2-test" in said
    assert "watch this run: lfpc report --watch runs/stage1\n" in lines
    after = "lfpc eval HELD_OUT --checkpoint runs/stage1/checkpoints/step-000002 --probes own noise"
    assert f"evaluate it: {after}" in lines


def downloaded(folder):
    """The sets of the mixture in their published layouts, two questions each, and V*."""
    vstar(folder)

    def picture(name, seed):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((448, 448), 20 + seed).convert("RGB").save(file)
        return file

    rows = []
    for n in (0, 1):
        picture(f"pixel-reasoner/images/{n}.jpg", n)
        row = {"qid": f"q{n}", "question": f"Which colour is {n}?", "answer": "red"}
        rows.append({**row, "image": [f"images/{n}.jpg"], "is_video": False})
    published.write_parquet(folder / "pixel-reasoner" / "data.parquet", rows)
    rows = []
    for n in (2, 3):
        picture(f"chain-of-focus/sa/{n}.jpg", n)
        row = {"question": f"<image>How many are {n}?", "groundtruth": "3", "data_source": "sa1b"}
        rows.append({**row, "image_name": f"/authors/disk/sa/{n}.jpg"})
    published.write_json(folder / "chain-of-focus" / "rl.json", rows)
    rows = [
        {
            "problem": f"<image>What is {n}?",
            "answer": "4",
            "image": picture(f"thinklite-vl/{n}.png", n).read_bytes(),
        }
        for n in (4, 5)
    ]
    published.write_parquet(folder / "thinklite-vl" / "train.parquet", rows)


@pytest.mark.slow
@pytest.mark.long
def test_training_on_a_node_at_the_size_of_the_miniature(tmp_path, monkeypatch, capsys):
    """The commands of the page on published layouts with tiny pictures. The local engine stands in
    for the GPUs of `lfpc train`, after the settings of verl are made; boxes are given.
    """
    from lfpc.mini.folders import base_checkpoint
    from lfpc.training.local import train as local_train
    from lfpc.training.verl import launch
    from lfpc.training.verl.translate import settings

    def on_this_machine(config, cluster):
        assert settings(config, cluster)["trainer.n_gpus_per_node"] == 8
        return local_train(replace(config, dtype="float32"), progress=False)

    monkeypatch.setattr(launch, "train", on_this_machine)
    monkeypatch.chdir(tmp_path)
    downloaded(Path("downloads"))
    more = {
        "select": ["--ladder", "256", "25"],
        "train": shlex.split(
            "--steps 2 --prompts-per-step 4 --group-size 2 --max-turns 2 --max-new-tokens 24 "
            "--max-rollout-tokens 600 --crop.max-tokens 25 --crop.min-tokens 16"
        ),
    }
    with ChatServer(say=say) as server:
        places = {
            "http": server.base_url,
            "Qwen": "scripted",
            "models": base_checkpoint(),
            "/their": "/authors/disk/",
            "vllm": "transformers",
        }
        for words in commands("docs/train-7b.md"):
            words = replaced([word.replace("000080", "000002") for word in words], places)
            if words[0] == "annotate":
                nested = ((Box(0.4, 0.4, 0.6, 0.6), Box(0.3, 0.3, 0.7, 0.7)),)
                hard = [replace(one, boxes=nested) for one in read_samples(Path("data/hard"))]
                write_samples(hard, Path("data/hard"))
                continue
            words = [word for word in words if word != "--watch"]
            run([*words, *more.get(words[0], ())])
    said = capsys.readouterr().out
    assert "A: runs/stage2-vstar" in said
