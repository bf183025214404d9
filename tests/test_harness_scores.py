"""The same replies scored by `lfpc eval` and, through `lfpc serve`, by other people's harnesses.
Verdicts differ only where their rules read an answer otherwise. `make test-clients` runs these."""

import base64
import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from live_server import CONFIG, listening, scripted_model
from test_clients import found_by, vlmevalkit
from test_serve_completions import png

from environments import made
from lfpc.cli import main
from lfpc.evaluation.run import evaluate_probe
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.published.hrbench import score_hrbench
from lfpc.records import EpisodeRecord
from lfpc.samples import read_samples

pytestmark = [
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.skipif(
        not made("clients"),
        reason="the harnesses are in .venv-clients, which is missing or old: make test-clients",
    ),
]
COLOURS = ("red", "green", "blue", "white")
"""Options of every question, rotated from one to the next. All gloves are red."""
LETTERS = "ABCD"
ALIKE = {
    "{right}": True,
    "{wrong}": False,
    "({right})": True,
    "{right}.": True,
    "{right}. red": True,
    "{wrong}. {wrong_text}": False,
    "**{right}**": True,
    "Option {right}": True,
    "Answer: {right}": True,
    "The answer is {right}.": True,
    "The answer is {wrong}.": False,
    "The correct option is ({right}), the red one": True,
    "It is not in the picture": False,
}
"""Answers that every harness reads alike."""
OTHERWISE = {
    "{right_small}": ("vlmevalkit", True),  # it reads capital letters only
    "red": ("lmms-eval", True),  # it reads no texts of options
    "blue": ("lmms-eval", False),  # but a word's first letter: here B is red
    "A red one, so {wrong}": ("both", False),  # an article is a letter; a text counts anywhere
    "{right} or {wrong}": ("lmms-eval", False),  # the first letter counts
    "It is a red glove": ("vlmevalkit", False),  # a text counts anywhere
}
"""Answers about which another harness decides otherwise; the verdict is that of lfpc."""
SAID = (*ALIKE, *OTHERWISE)


def options_of(number: int) -> list[str]:
    turned = number % 4
    return [*COLOURS[turned:], *COLOURS[:turned]]


def right_of(number: int) -> str:
    return LETTERS[options_of(number).index("red")]


def said_about(question: str) -> str:
    """The scripted model's reply."""
    number = int(re.search(r"glove (\d+)", question)[1])  # pyright: ignore
    right = right_of(number)
    wrong = LETTERS[(LETTERS.index(right) + 1) % 4]
    answer = SAID[number].format(
        right=right,
        wrong=wrong,
        right_small=right.lower(),
        wrong_text=options_of(number)[LETTERS.index(wrong)],
    )
    return f"<answer>{answer}</answer>"


@pytest.fixture
def served(tmp_path: Path):
    model = scripted_model(lambda context: said_about(context.question))
    with listening(model, tmp_path / "served") as address:
        yield f"{address}/v1"


def records_of(name: str, files: Path, folder: Path) -> list[EpisodeRecord]:
    """What `lfpc eval` records, in the order of the questions."""
    assert main(["data", "import", name, str(files), str(folder / "data")]) == 0
    policy = ScriptedPolicy(lambda context: said_about(context.question))
    samples = read_samples(folder / "data")
    return evaluate_probe(policy, samples, CONFIG, folder / "run", progress=False)


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    return {SAID[int(number)]: bool(score) for number, score in found.items()}


def test_lmms_eval_scores_vstar_as_lfpc(served: str, tmp_path: Path) -> None:
    texts = ("text", "category", "label", "question_id")
    rows = [
        {
            "image": {"bytes": png(), "path": None},
            "text": "\n".join(
                [
                    f"What is the colour of glove {n}?",
                    *(f"({x}) {y}" for x, y in zip(LETTERS, options_of(n), strict=True)),
                    "Answer with the option's letter from the given choices directly.",
                ]
            ),
            "category": "direct_attributes",
            "label": right_of(n),
            "question_id": str(n),
        }
        for n in range(len(SAID))
    ]
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {name: {"dtype": "string", "_type": "Value"} for name in texts}
    features["image"] = {"_type": "Image"}
    schema = pa.schema(
        [("image", image), *((name, pa.string()) for name in texts)],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    files = tmp_path / "vstar"
    files.mkdir()
    table = pa.Table.from_pylist(rows, schema)
    pq.write_table(table, files / "test-00000-of-00001.parquet")
    ours = {
        record.sample.meta["question_id"]: record.correct
        for record in records_of("vstar", files, tmp_path)
    }
    theirs = verdicts(found_by("lmms_eval_task", served, "script", files))
    differ = {"lmms-eval", "both"}
    assert verdicts(ours) == {**ALIKE, **{said: ours for said, (_, ours) in OTHERWISE.items()}}
    assert theirs == {
        **ALIKE,
        **{said: ours != (who in differ) for said, (who, ours) in OTHERWISE.items()},
    }


def test_vlmevalkit_scores_hrbench_as_lfpc(served: str, tmp_path: Path) -> None:
    folder = tmp_path / "LMUData"
    folder.mkdir()
    with (folder / "HRBench4K.tsv").open("w", newline="") as file:
        out = csv.writer(file, delimiter="\t")
        out.writerow(
            ["index", "question", "answer", "category", *LETTERS, "cycle_category", "image"]
        )
        for n in range(len(SAID)):
            category = "cross" if n % 3 else "single"
            question = f"What is the colour of glove {n}?"
            picture = base64.b64encode(png()).decode()
            out.writerow([n, question, right_of(n), category, *options_of(n), n % 4, picture])
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "hr_bench_4k.tsv").write_bytes((folder / "HRBench4K.tsv").read_bytes())
    records = records_of("hrbench-4k", tmp_path / "files", tmp_path)
    found = found_by("vlmevalkit_task", served, "script", folder, vlmevalkit())
    differ = {"vlmevalkit", "both"}
    assert verdicts({record.sample.id: record.correct for record in records}) == {
        **ALIKE,
        **{said: ours for said, (_, ours) in OTHERWISE.items()},
    }
    assert verdicts(found["right"]) == {
        **ALIKE,
        **{said: ours != (who in differ) for said, (who, ours) in OTHERWISE.items()},
    }
    same = [replace(one, correct=found["right"][one.sample.id]) for one in records]
    assert score_hrbench(same)["accuracy"] == pytest.approx(found["accuracy"])
