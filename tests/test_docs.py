"""The examples of docs/extending.md and docs/python.md run as they stand there,
docs/architecture.md names what is there, and the gallery finds its cases.
"""

import pkgutil
import pydoc
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from chat_server import ChatServer
from reports import made_up_episode, made_up_evidence, noise_pictures

import lfpc
from environments import ROOT
from lfpc.cli.reference import page as commands
from lfpc.dialogue import Answer, Crop, Malformed
from lfpc.errors import RunError
from lfpc.images import global_view, open_picture
from lfpc.protocols import PROTOCOLS
from lfpc.published.benchmarks import read_benchmark
from lfpc.published.index import PUBLISHED
from lfpc.report.evidence import Evidence
from lfpc.report.finding import SIDE
from lfpc.report.gallery import write_gallery

DOCS = Path(__file__).parents[1] / "docs"
SOURCE = DOCS.parent / "src" / "lfpc"


def example(heading, page="extending.md", **replaced):
    """The names that the example under `heading` of `page` defines, once it has run with the new
    text of each (old, new) in `replaced`."""
    section = (DOCS / page).read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < 20, heading
    for old, new in replaced.values():
        assert code.count(old) == 1
        code = code.replace(old, new)
    names = {}
    exec(compile(code, f"docs/{page}, {heading}", "exec"), names)
    return names


def test_the_benchmark_of_the_docs_is_read(tmp_path, picture):
    picture("sign.png")
    (tmp_path / "signs.jsonl").write_text(
        '{"n": 1, "file": "sign.png", "q": "What does it say?", "a": "stop"}\n'
    )
    example("A benchmark")
    try:
        (found,) = read_benchmark("signs", tmp_path, tmp_path / "work")
    finally:
        del PUBLISHED["signs"]  # the other tests' table is as it was
    assert (found.id, found.answer, found.image) == ("1", "stop", tmp_path / "sign.png")


def test_the_protocol_of_the_docs_reads_a_crop_an_answer_and_nonsense(picture):
    example("A protocol")
    protocol = PROTOCOLS.pop("plain")
    view = global_view(open_picture(picture(size=(112, 56))), 8)
    crop, answer, nonsense = (
        protocol.parse(text, [view]) for text in ("LOOK 0 0 56 28", "SAY red", "hm")
    )
    assert isinstance(crop, Crop)
    assert crop.box.corners == (0, 0, 0.5, 0.5)
    assert answer == Answer("red")
    assert isinstance(nonsense, Malformed)


@pytest.mark.slow
def test_the_architecture_of_the_docs_computes_what_transformers_does():
    import tiny
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from lfpc.policies.qwen.architectures import ARCHITECTURES
    from lfpc.policies.qwen.language import read
    from lfpc.policies.qwen.varlen import speed_up_vision
    from lfpc.policies.transformers import TransformersPolicy, row_features

    known = tiny.tokenizer().get_vocab()
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": tiny.model_vocabulary(),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [2, 3, 3],
                "rope_theta": 1000.0,
            },
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2},
        image_token_id=known["<|image_pad|>"],
        video_token_id=known["<|video_pad|>"],
        vision_start_token_id=known["<|vision_start|>"],
        vision_end_token_id=known["<|vision_end|>"],
    )
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(config).eval()
    for weight in model.parameters():
        weight.data.mul_(3 if weight.ndim > 1 else 1)
    plain = Qwen2VLForConditionalGeneration(config).eval()
    plain.load_state_dict(model.state_dict())
    example("Example", "architectures.md")
    try:
        speed_up_vision(model)
        policy = TransformersPolicy(model, tiny.tokenizer(), PROTOCOLS["qwen2_5_vl"])
        row = policy.encoder.context(
            tiny.context("What mark?", tiny.view(0), tiny.crop_turn(1), tiny.crop_turn(2, width=84))
        )
        with torch.no_grad():
            got = read(model, [row], row_features(policy.views, [row]), prefixes=None)
            ours = model.lm_head(got.hidden[0]).log_softmax(-1)
    finally:
        del ARCHITECTURES["qwen2_vl"]
    tokens = torch.from_numpy(row.ids)[None]
    pictures = Qwen2VLImageProcessorPil()(
        [view.image for view in row.views], do_resize=False, return_tensors="pt"
    )
    kinds = (tokens == known["<|image_pad|>"]).int()
    with torch.no_grad():
        expected = plain(input_ids=tokens, mm_token_type_ids=kinds, **pictures).logits[0]
    assert torch.allclose(ours, expected[row.prefix :].log_softmax(-1), atol=1e-4)


@dataclass
class Learner:
    """Crops once, answers rightly on every second rollout, and keeps what it is told to learn."""

    told: list

    def reply(self, contexts):
        from lfpc.dialogue import Reply

        call = (
            '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, '
            "28]}}</tool_call>"
        )
        return [
            Reply(f"<answer>{'K' if n % 2 else 'L'}</answer>" if one.turns else call)
            for n, one in enumerate(contexts)
        ]

    def learn(self, episodes, advantages):
        self.told.append((len(episodes), advantages))


def test_the_reward_of_the_docs_takes_a_tenth_for_every_further_crop(sample):
    from lfpc.episode import episode, play
    from lfpc.images import CropRules
    from lfpc.looks import original_look
    from lfpc.policies.scripted import ScriptedPolicy

    call = (
        '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, '
        "28]}}</tool_call>"
    )
    policy = ScriptedPolicy(
        lambda context: "<answer>K</answer>" if len(context.turns) == 3 else call
    )
    asked = sample()
    game = episode(
        asked,
        global_view(open_picture(asked.image), 8),
        look=original_look(CropRules()),
        protocol=PROTOCOLS["qwen2_5_vl"],
    )
    (played,) = play([game], policy)
    assert example("A reward")["thrifty_reward"](played).total == pytest.approx(
        1.5 - 0.2
    )  # three crops


@pytest.mark.slow
def test_the_engine_of_the_docs_plays_compares_and_writes_the_run(tmp_path, sample):
    from lfpc.samples import write_samples
    from lfpc.storage.runs import RunFolder
    from lfpc.training.config import TrainConfig

    write_samples([sample(id=name, budget=8) for name in "ab"], tmp_path)
    config = TrainConfig(
        data=tmp_path, out=tmp_path / "run", steps=2, prompts_per_step=2, group_size=2
    )
    learner = Learner([])
    example("An engine")["train"](config, learner)
    assert learner.told == [(4, pytest.approx([-1, 1, -1, 1], abs=1e-5))] * 2
    assert [row["reward"] for row in RunFolder(tmp_path / "run").metrics()] == [
        0.75,
        0.75,
    ]  # half of the rollouts earn 1 + 0.5


def test_the_gallery_shows_one_episode_of_each_case_and_counts_all(tmp_path):
    pictures = noise_pictures(tmp_path / "pictures", 1)

    def row(n, **more):
        return made_up_episode(n, pictures[0], **more)

    own = [
        row(0, correct=True),
        row(1, correct=False),
        row(2, correct=False, iou=0.02, coverage=0.1),
        row(3, correct=True),
    ]
    noise = [row(n, correct=n == 3) for n in range(4)]
    evidence = made_up_evidence(
        {("stage2", "small", "own", 0): own, ("stage2", "small", "noise", 0): noise}
    )
    page = write_gallery(tmp_path / "docs", evidence).read_text()
    assert "| stage2 | small | 1 of 4 | 1 of 4 | 1 of 4 |" in page
    for name, sample_id in (
        ("right-crop-right", "q00000"),
        ("right-crop-misread", "q00001"),
        ("wrong-crop", "q00002"),
    ):
        assert (tmp_path / "docs" / "gallery" / f"{name}.jpg").is_file()
        assert f"(gallery/{name}.jpg)" in page
        assert sample_id in page
    with pytest.raises(RunError, match="no evaluated episodes"):
        write_gallery(tmp_path / "docs", Evidence())


def test_the_finding_is_the_first_question_that_shows_it(tmp_path):
    pictures = noise_pictures(tmp_path / "pictures", 1)

    def row(n, says, **more):
        return made_up_episode(n, pictures[0], correct=says == "red", says=says, **more)

    def evidence(lazy, looking):
        """Records of both models by what they answer with their own crop and under noise."""
        cells = {("baseline", "middle"): lazy, ("stage1", "middle"): looking}
        return made_up_evidence(
            {
                (*cell, probe, 0): [
                    row(n, pair[i], **({"coverage": 0.1} if n == 4 else {}))
                    for n, pair in enumerate(pairs, 1)
                ]
                for cell, pairs in cells.items()
                for i, probe in enumerate(("own", "noise"))
            }
        )

    same, changed, wrong = ("red", "red"), ("red", "blue"), ("blue", "blue")
    shows = evidence(
        [changed, same, same, same, same],
        [changed, same, wrong, changed, changed],  # the crop of the fourth misses the target
    )
    text = write_gallery(tmp_path / "docs", shows).read_text()
    assert "`q00005`, the first question of the demo that shows it" in text
    sheet = open_picture(tmp_path / "docs" / "gallery" / "finding.jpg")
    assert sheet.width > 3 * SIDE
    assert sheet.height > 2 * SIDE
    assert "shows it" not in write_gallery(tmp_path / "two", evidence([same], [same])).read_text()


def test_every_page_of_the_site_is_in_its_navigation():
    listed = set(
        re.findall(r": (\S+\.md)$", (DOCS.parent / "mkdocs.yml").read_text(), re.MULTILINE)
    )
    assert {path.name for path in DOCS.glob("*.md")} == listed


def architecture(heading):
    """The section of docs/architecture.md under `heading`."""
    page = (DOCS / "architecture.md").read_text()
    return page.split(f"## {heading}", 1)[1].split("\n## ", 1)[0]


def column(section, number):
    """Cells of one column of the first table in `section`, without its head."""
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [row.split("|")[number + 1].strip() for row in rows[2:]]


@pytest.mark.slow
def test_every_dotted_name_of_the_architecture_page_exists():
    page = (DOCS / "architecture.md").read_text()
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    modules = {path.stem for path in SOURCE.glob("*.py")}
    found = [
        name
        for name in re.findall(r"`([a-z]\w*(?:\.\w+)+)`", page)
        if name.split(".")[0] in rooms | modules and not name.endswith((".py", ".md", ".json"))
    ]
    for heading in ("Samples to weights", "Command to figure"):
        assert set(re.findall(r"`([^`]+)`", " ".join(column(architecture(heading), 1)))) <= set(
            found
        )
    assert len(found) > 30
    for name in found:
        pkgutil.resolve_name(f"lfpc.{name}")


def test_every_file_of_the_architecture_page_exists():
    page = (
        (DOCS / "architecture.md").read_text().replace("src/lfpc/", "").replace("NAME", "__init__")
    )
    files = set(re.findall(r"`((?:\w+/)*\w+\.py)`", page.split("## Glossary")[0]))
    files -= {"runs.py"}  # of an earlier commit
    assert len(files) > 8
    assert not [name for name in files if not (SOURCE / name).is_file()]


def test_every_room_has_its_line_in_the_architecture_page():
    listed = {cell.strip("`/") for cell in column(architecture("Rooms"), 0)}
    rooms = {
        path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()
    }
    assert listed == rooms | {"package root", "policies/qwen", "training/verl"}
    assert not [cell for cell in column(architecture("Rooms"), 1) if " and " in cell]


def test_the_glossary_has_at_most_thirty_words():
    assert len(column(architecture("Glossary"), 0)) <= 30


@pytest.mark.slow
def test_every_link_into_the_reference_leads_to_something_it_documents():
    listed = re.findall(
        r"^::: (\S+)\n(?:    options: \{members: \[(.*)\]\})?",
        (DOCS / "reference.md").read_text(),
        re.MULTILINE,
    )
    whole = {name for name, members in listed if not members}
    parts = {f"{name}.{part}" for name, some in listed if some for part in some.split(", ")}
    for path in DOCS.glob("*.md"):
        for link in re.findall(r"\(reference\.md#(.+?)\)", path.read_text()):
            assert link in whole | parts or link.rpartition(".")[0] in whole, (path.name, link)
    for name in whole | parts:
        assert pydoc.locate(name) is not None, name


def test_the_evaluation_of_the_docs_asks_a_server(tmp_path, picture, sample, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = [
        sample(id=name, question=f"Which {name}?", image=picture(f"{name}.png")) for name in "ab"
    ]
    lfpc.write_samples(asked, "data/test")

    def say(question, turn, pictures):
        call = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, 28]}}'
        if not turn:
            return f"<tool_call>{call}</tool_call>"
        return f"<answer>{'K' if 'a' in question else 'L'}</answer>"

    with ChatServer(say=say) as server:
        names = example(
            "Evaluate a served model",
            "python.md",
            address=("http://127.0.0.1:8000/v1", server.base_url),
            model=("Qwen/Qwen2.5-VL-7B-Instruct", "scripted"),
        )
        lfpc.probe(names["result"], ["other"], policy=names["policy"], progress=False)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("probe  accuracy")
    assert said[-3:-1] == ["0.5", "0.0"]
    assert said[-1].startswith("Which b? L (Box(x0=0.0")
    assert list(names["result"].records) == ["own", "noise", "truth"]


def test_the_samples_of_the_docs_are_written_and_read(tmp_path, picture, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    picture("pictures/sign.png")
    assert [example("Write samples", "python.md")["sign"]] == lfpc.read_samples("data/signs")


@pytest.mark.slow
def test_the_training_of_the_docs_selects_trains_and_evaluates(tmp_path, monkeypatch, capsys):
    from lfpc.mini.folders import base_checkpoint, write_split

    monkeypatch.chdir(tmp_path)
    write_split(tmp_path / "data" / "train", "train", 2)
    write_split(tmp_path / "data" / "test", "test", 2)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "base").symlink_to(base_checkpoint())
    names = example("Train", "python.md")
    assert names["trained"] == Path("out/stage1/checkpoints/step-000002")
    assert {sample.budget for sample in lfpc.read_samples("data/selected")} <= {25, 100}
    assert "probe  accuracy" in capsys.readouterr().out
    run = example("Read a run", "python.md")
    assert len(run["rewards"]) == 2
    assert len(run["answers"]) == len(run["records"]) == 2 * 4


def test_the_page_of_commands_is_what_they_print():
    stored = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert commands() == stored, "python -m lfpc.cli.reference > docs/cli.md"
