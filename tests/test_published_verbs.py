"""Stage II, probes and the demo page with checkpoints in the published layout.

Random weights write neither calls nor answers. Here they are made to: the draw of each token is
replaced, and everything else is what the engine does, so log-probabilities are the model's.
"""

import base64
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from asking_app import asked
from PIL import Image

import lfpc
from lfpc import cli
from lfpc.boxes import Box
from lfpc.dialogue import Answer, Crop
from lfpc.images import shown_size, visual_tokens
from lfpc.policies import transformers
from lfpc.policies.qwen import sampling
from lfpc.protocols import PROTOCOLS
from lfpc.samples import Sample, write_samples
from lfpc.storage.runs import RunFolder
from lfpc.web import serving

pytestmark = pytest.mark.slow

TRUTH = Box(0.25, 0.25, 0.5, 0.5)
BOXES = (TRUTH, Box(0.3, 0.3, 0.6, 0.6), Box(0.6, 0.6, 0.9, 0.9))
SIZES = {"12-megapixels": (4000, 3000), "48-megapixels": (8000, 6000)}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two large pictures with a truth box."""
    folder = tmp_path_factory.mktemp("data")
    samples = []
    for name, size in SIZES.items():
        Image.new("RGB", size, "teal").save(folder / f"{name}.jpg")
        samples.append(
            Sample(
                id=name,
                image=folder / f"{name}.jpg",
                question="What is it?",
                answer="a wall",
                boxes=((TRUTH,),),
                budget=256,
            )
        )
    write_samples(samples, folder)
    return folder


@pytest.fixture
def speaking(monkeypatch) -> None:
    """The engine writes a crop call about the first picture, and then "a wall"."""
    write = transformers.write
    boxes = count()

    def forced(model, rows, start, writer, rules, _randoms):
        protocol = PROTOCOLS[model.config.model_type]

        def ids(row) -> Iterator[int]:
            box = BOXES[next(boxes) % len(BOXES)]
            call = protocol.write_call(box, row.views[0])
            text = "<answer>a wall</answer>" if len(row.views) > 1 else call
            yield from writer.tokenizer(f"{text}<|im_end|>", add_special_tokens=False)["input_ids"]

        wanted = [ids(row) for row in rows]
        with monkeypatch.context() as patched:
            # a row's random numbers name it, as finished rows are dropped
            patched.setattr(
                sampling,
                "_draw",
                lambda _table, _rules, own: torch.tensor([next(wanted[int(n)]) for n in own]),
            )
            numbers = torch.arange(len(rows), dtype=torch.float64)[:, None]
            own = numbers.expand(-1, rules.max_new_tokens)
            return write(model, rows, start, writer, rules, own)

    monkeypatch.setattr(transformers, "write", forced)


@pytest.mark.parametrize("family", ["qwen2_5_vl", pytest.param("qwen3_vl", marks=pytest.mark.long)])
def test_stage2_of_a_published_folder_stops_and_continues(
    family, published, data, tmp_path, speaking, capsys
):
    """Stage I is in test_published_checkpoints.py, there LoRA for Qwen3-VL."""
    lora = ["--lora", "rank=2", "alpha=4"] if family == "qwen2_5_vl" else []
    words = ["train", "stage2", "--data", str(data), "--init", str(published(family))]
    words += ["--out", str(tmp_path / "run"), "--steps", "2", "--save-every", "1", "--group-size"]
    words += ["2", "--prompts-per-step", "2", "--max-turns", "2", "--max-new-tokens", "80"]
    words += ["--crop.min-tokens", "64", "--crop.max-tokens", "64"]
    words += ["--learning-rate", "1e-3", "--device", "cpu", *lora]
    assert cli.main([*words, "--stop-after", "0.001"]) == 0, capsys.readouterr()
    assert [row["step"] for row in RunFolder(tmp_path / "run").metrics()] == [1]
    assert cli.main(words) == 0, capsys.readouterr()
    rows = RunFolder(tmp_path / "run").metrics()
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert (row["accuracy"], row["tool_rate"], row["malformed"]) == (1, 1, 0)
        assert row["grad_norm"] > 0, "rollouts differ in their boxes alone"
        assert row["logprob_gap"] < 1e-4
        assert 0 < row["iou_last"] < 1


@pytest.mark.parametrize("family", [pytest.param("qwen2_5_vl", marks=pytest.mark.long), "qwen3_vl"])
def test_probes_and_the_gain_of_crops_of_large_pictures(
    family, published, data, tmp_path, speaking, capsys
):
    run = tmp_path / "run"
    words = [str(data), "--checkpoint", str(published(family)), "--out", str(run)]
    words += ["--max-new-tokens", "80", "--crop-tokens", "64", "64"]
    assert cli.main(["eval", *words, "--probes", "own"]) == 0
    probe = ["probe", str(run), "--probes", "noise", "truth"]
    assert cli.main(probe) == 0, capsys.readouterr()
    assert cli.main([*probe, "--gain"]) == 0, capsys.readouterr()
    own, noise = (
        lfpc.read_records(lfpc.open_run(run / "chosen" / name)) for name in ("own", "noise")
    )
    protocol = PROTOCOLS[family]
    first = shown_size((4000, 3000), max_tokens=256, factor=protocol.factor)
    for record in (*own.values(), *noise.values()):
        assert record.global_tokens == visual_tokens(first, protocol.factor)
        assert [type(turn.action) for turn in record.turns] == [Crop, Answer]
        assert record.correct
        # the second turn reads the crop, and what is written around it
        crop = record.visual_tokens - record.global_tokens
        call, answer = record.turns
        assert 50 < crop <= 64
        assert crop == visual_tokens(call.view, protocol.factor)
        around = answer.prompt_tokens - call.prompt_tokens - call.tokens - crop
        assert 0 < around < 40
    gain = json.loads((run / "chosen" / "gain.json").read_text())
    assert gain["n"] == 2
    assert set(gain["looks"]) == {"noise", "truth"}
    # a teal crop and noise are read differently; a crop of the truth is as teal as the model's own
    assert abs(gain["looks"]["noise"]["delta"]) > 1e-3 > abs(gain["looks"]["truth"]["delta"])


@pytest.mark.parametrize("family", [pytest.param("qwen2_5_vl", marks=pytest.mark.long), "qwen3_vl"])
def test_the_page_and_the_endpoint_answer_about_large_pictures(
    family, published, data, speaking, monkeypatch
):
    """`lfpc serve`, asked in place of being served."""
    protocol = PROTOCOLS[family]
    told = {}

    def ask(app, _name, **_options):
        picture = (data / "12-megapixels.jpg").read_bytes()
        sent = asked(app, "POST", "/pictures", content=picture).json()
        question = {"picture": sent["id"], "question": "What is it?"}
        lines = asked(app, "POST", "/ask", json=question).text.splitlines()
        told["page"] = [json.loads(line) for line in lines]
        picture = base64.b64encode((data / "48-megapixels.jpg").read_bytes()).decode()
        url = {"url": f"data:image/jpeg;base64,{picture}"}
        content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": "What is it?"}]
        body = {"model": family, "messages": [{"role": "user", "content": content}]}
        told["endpoint"] = asked(app, "POST", "/v1/chat/completions", json=body).json()

    monkeypatch.setattr(serving, "serve", ask)
    words = ["--checkpoint", str(published(family)), "--budget", "256", "--crop-tokens", "64", "64"]
    assert cli.main(["serve", *words, "--port", "0"]) == 0
    first, crop, answer, end = told["page"]
    shown = shown_size((4000, 3000), max_tokens=256, factor=protocol.factor)
    assert first["view"]["tokens"] == visual_tokens(shown, protocol.factor)
    assert crop["action"]["box"] == pytest.approx(BOXES[0].corners, abs=0.005)
    assert (answer["action"]["text"], end["answer"]) == ("a wall", "a wall")
    assert end["visual_tokens"] == first["view"]["tokens"] + crop["view"]["tokens"]
    found = told["endpoint"]
    assert "choices" in found, found
    assert found["choices"][0]["message"]["content"] == "a wall"
    assert found["lfpc"]["first_view"] == list(shown)
    assert found["usage"]["prompt_tokens"] > found["lfpc"]["visual_tokens"]
