"""Scoring again from the rows on disk: verdicts, results.json, the protocol beside each number, and
the verb."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from lfpc.evaluate.summary import data_block, prompt_hash, protocol_block, write_results

from lfpc import cli
from lfpc.boxes import WHOLE
from lfpc.dialogue import Answer, Crop, Reply, Turn
from lfpc.episode import Episode, Stop
from lfpc.errors import RunError, SampleError
from lfpc.evaluate.judge import Judge, JudgeConfig
from lfpc.evaluate.rescore import needs_judge, rescore_rows, rescore_run
from lfpc.images import CropRules, View, open_picture
from lfpc.protocols import PROTOCOLS
from lfpc.records import episode_row
from lfpc.samples import Sample
from lfpc.storage.runs import EPISODES_FILE, Kind, RunFolder

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
Make = Callable[..., Sample]


@dataclass(frozen=True)
class Config:
    name: str = "test"


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    """A judge who finds right what holds the word "kite", decides nothing about "maybe", and counts
    what it was asked in `asked`."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][
                0
            ]["content"]
            asked.append(prompt)
            said = json.loads(prompt[prompt.index("{") : prompt.rindex("}") + 1])["answer to check"]
            verdict = (
                ""
                if "maybe" in said
                else "VERDICT: correct"
                if "kite" in said
                else "VERDICT: incorrect"
            )
            self.answer(
                {
                    "id": "x",
                    "object": "chat.completion",
                    "choices": [{"index": 0, "message": {"content": verdict}}],
                }
            )

        def do_GET(self) -> None:
            self.answer(
                {
                    "object": "list",
                    "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "us"}],
                }
            )

        def answer(self, found: dict[str, Any]) -> None:
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    with Judge(
        JudgeConfig(url=url, model="m", cache=tmp_path / "judge.jsonl", retries=0, concurrency=1)
    ) as one:
        one.asked = asked
        yield one
    http.shutdown()
    thread.join()
    http.server_close()


def rows_of(sample: Make, *said: str | None, **fields: Any) -> list[dict[str, Any]]:
    """An evaluation row per answer, as an evaluation writes it."""
    rows = []
    for number, text in enumerate(said):
        one = (
            sample(id=f"s{number}", answer="red kite")
            if not fields
            else sample(id=f"s{number}", **fields)
        )
        view = View(open_picture(one.image), WHOLE)
        turns = (Turn(Reply("look"), Crop(WHOLE), view),)
        turns += () if text is None else (Turn(Reply(text), Answer(text)),)
        rows.append(
            episode_row(
                Episode(one, view, turns, Stop.MAX_TURNS if text is None else Stop.ANSWERED)
            )
        )
    return rows


def write_run(folder: Path, rows: list[dict[str, Any]], **extra: Any) -> Path:
    run = RunFolder.open(folder, Kind.EVALUATION, Config())
    for row in rows:
        run.log_episode(row["sample"], {**row, **extra})
    return folder


def test_rules_decide_what_they_can_and_the_judge_the_rest(sample: Make, judge: Any) -> None:
    rows = rows_of(sample, "Red kite.", "it is a kite that is red", "a dog", "maybe", None)
    found = rescore_rows(rows, judge)
    assert [row["method"] for row in found] == ["text", "judge", "judge", "undecided", "unparsed"]
    assert [row["correct"] for row in found] == [True, True, False, False, False]
    assert found[1]["judge"] == "m (prompt 1)"
    assert "no verdict" in found[3]["undecided"]
    assert len(judge.asked) == 3
    assert rescore_rows(found) == rows  # and back: rules alone


def test_an_option_that_is_named_needs_no_judge_and_an_unreadable_answer_does(
    sample: Make, judge: Any
) -> None:
    rows = rows_of(
        sample, "A", "(B) kite", "the one with the kite", options=("dog", "kite"), answer="B"
    )
    assert [needs_judge(row) for row in rows] == [False, False, True]
    found = rescore_rows(rows, judge)
    assert [(row["correct"], row["method"]) for row in found] == [
        (False, "option"),
        (True, "option"),
        (True, "judge"),
    ]
    assert '"reference answer": "B. kite"' in judge.asked[0]
    assert "A. dog" in judge.asked[0]


def test_two_different_numbers_need_no_judge(sample: Make) -> None:
    assert not needs_judge(rows_of(sample, "12", answer="13")[0])


def test_an_error_row_stays_an_error_and_a_row_without_an_answer_field_is_named(
    sample: Make,
) -> None:
    error = {"sample": "x", "correct": False, "error": "no picture"}
    assert rescore_rows([error]) == [error]
    (row,) = rows_of(sample, "kite")
    del row["options"]
    with pytest.raises(SampleError, match="a row of sample 's0' cannot be scored: 'options'"):
        rescore_rows([row])


def test_a_run_is_rescored_in_place_and_the_second_time_nothing_is_written(
    tmp_path: Path, sample: Make, judge: Any
) -> None:
    run = tmp_path / "run"
    rows = rows_of(sample, "red kite", "some kite", "maybe")
    write_run(run / "vstar" / "own", rows)
    write_run(run / "noise", rows, task="vstar")
    figures = rescore_run(run, judge, progress=False)
    assert set(figures) == {"vstar/own", "vstar/noise"}
    assert figures["vstar/own"]["acc"] == pytest.approx(2 / 3)
    assert [
        figures["vstar/own"][f"decided/{name}"] for name in ("rule", "judge", "undecided")
    ] == pytest.approx([1 / 3] * 3)
    lines = (run / "noise" / EPISODES_FILE).read_text().splitlines()
    assert len(lines) == 5  # two verdicts changed; the former lines are still there
    assert rescore_run(run, judge, progress=False) == figures
    assert (run / "noise" / EPISODES_FILE).read_text().splitlines() == lines
    assert [row["method"] for row in RunFolder(run / "noise").episodes().values()] == [
        "text",
        "judge",
        "undecided",
    ]
    config = json.loads((run / "results.json").read_text())["configs"]["vstar/own"]
    assert config == {"run": {"name": "test"}, "judge": judge.identity}


def test_results_have_the_shape_of_the_harness_and_keep_the_protocol_when_rescored(
    tmp_path: Path, sample: Make
) -> None:
    two = [{**row, "image": f"{i}.png"} for i, row in enumerate(rows_of(sample, "red kite", "dog"))]
    rows = write_run(tmp_path / "run" / "vstar", two)
    file = tmp_path / "run" / "results.json"
    written = list(RunFolder(rows).episodes().values())
    write_results(
        file,
        {"vstar": written},
        {"vstar": {"model": "m", "judge": {"model": "j"}}},
        original={"vstar": 191},
    )
    table = json.loads(file.read_text())
    assert table["results"]["vstar"]["acc,none"] == 0.5
    assert table["results"]["vstar"]["acc_stderr,none"] == 0.5
    assert table["results"]["vstar"]["alias"] == "vstar"
    assert table["n-samples"] == {"vstar": {"original": 191, "effective": 2}}
    rescore_run(tmp_path / "run", progress=False)
    again = json.loads(file.read_text())
    assert again["configs"] == {"vstar": {"model": "m", "judge": None}}
    assert again["n-samples"] == table["n-samples"]


def test_results_of_another_kind_are_not_written_over(tmp_path: Path, sample: Make) -> None:
    write_run(tmp_path / "run", rows_of(sample, "red kite"))
    (tmp_path / "results.json").write_text('{"questions": 3}')
    with pytest.raises(RunError, match="results of another kind"):
        rescore_run(tmp_path, progress=False)


def test_the_protocol_block_holds_what_a_number_depends_on(sample: Make) -> None:
    block = protocol_block(
        model="m",
        revision="abc",
        protocol=PROTOCOL,
        budget=1024,
        crop=CropRules(),
        max_turns=6,
        sampling={"temperature": 0.0},
        coordinates="pixels of the shown picture",
        data=data_block([sample()], source="vstar", seed=0),
    )
    assert json.loads(json.dumps(block)) == block
    assert (
        block["budget"],
        block["crop"]["max_tokens"],
        block["data"]["samples"],
        block["judge"],
    ) == (1024, 1024, 1, None)
    assert block["environment"]["lfpc"]
    assert block["prompt_sha256"] == prompt_hash(PROTOCOL) != prompt_hash(PROTOCOL, tools=False)


def test_the_data_hash_knows_the_questions_and_not_where_they_lie(
    tmp_path: Path, sample: Make, picture: Callable[..., Path]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = picture().rename(tmp_path / "elsewhere" / "picture.png")

    def value(**fields: Any) -> str:
        return data_block([sample(**fields)], source="x", seed=0)["sha256"]

    assert value() == value(image=moved)
    assert (
        len(
            {
                value(),
                value(answer="L"),
                value(options=("K", "L")),
                value(image=picture("picture2.png", (10, 10))),
            }
        )
        == 4
    )


def test_the_verb_prints_a_line_a_task_and_where_the_results_are(
    tmp_path: Path, sample: Make, capsys: Any
) -> None:
    write_run(tmp_path / "run", rows_of(sample, "red kite", "dog"), task="visualprobe")
    assert cli.main(["rescore", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "visualprobe: accuracy 0.500 [" in out
    assert "of 2 rows; decided by rule 100.0%" in out
    assert f"results: {tmp_path / 'run' / 'results.json'}" in out


@pytest.mark.parametrize("model", [("--judge-model", "m"), ()])
def test_the_verb_asks_a_judge_by_name_or_the_only_one_there_is(
    tmp_path: Path, sample: Make, judge: Any, capsys: Any, model: tuple[str, ...]
) -> None:
    write_run(tmp_path / "run", rows_of(sample, "some kite"))
    assert cli.main(["rescore", str(tmp_path / "run"), "--judge", judge.config.url, *model]) == 0
    assert (
        json.loads((tmp_path / "run" / "results.json").read_text())["configs"]["run"]["judge"][
            "model"
        ]
        == "m"
    )
    assert "accuracy 1.000" in capsys.readouterr().out
    assert (tmp_path / "run" / "judge.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rescore", "{}"], "no episodes.jsonl below it"),
        (["rescore", "{}", "--judge", "http://127.0.0.1:9/v1"], "does not say which models it has"),
        (["rescore", "{}", "--judge-model", "m"], "give --judge, its address, too"),
        (
            ["data", "fetch-instructions", "nonsense"],
            "unknown data set 'nonsense'; known are deepeyes",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, capsys: Any, arguments: list[str], says: str
) -> None:
    assert cli.main([word.format(tmp_path) for word in arguments]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("vstar", "craigwu/vstar_bench"),
        ("deepeyes", "ChenShawn/DeepEyes-Datasets-47k"),
        ("pixel-reasoner", "TIGER-Lab/PixelReasoner-RL-Data"),
        ("chain-of-focus", "xintongzhang/CoF-RL-Data"),
        ("thinklite-vl", "russwang/ThinkLite-VL-hard-11k"),
    ],
)
def test_instructions_are_printed_for_benchmarks_and_training_sets(
    capsys: Any, name: str, repository: str
) -> None:
    assert cli.main(["data", "fetch-instructions", name]) == 0
    assert f"hf download {repository}" in capsys.readouterr().out


def test_a_folder_without_rows_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="name the folder of an evaluation"):
        rescore_run(tmp_path)
