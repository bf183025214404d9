"""Scoring again from the records on disk: verdicts, results.json, the protocol beside each number,
and the verb."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from reports import made_up_record

from lfpc import cli
from lfpc.boxes import WHOLE
from lfpc.dialogue import Answer, Crop, Reply, Turn
from lfpc.episode import Episode, Stop
from lfpc.errors import RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.judge import Judge, JudgeConfig
from lfpc.evaluation.protocol import data_block, prompt_hash, protocol_block
from lfpc.evaluation.rescore import needs_judge, rescore, rescore_run
from lfpc.evaluation.run import open_evaluation
from lfpc.evaluation.stored import update_results
from lfpc.evaluation.timing import write_timings
from lfpc.images import CropRules, View, open_picture
from lfpc.metrics.summary import Timing
from lfpc.protocols import PROTOCOLS
from lfpc.published.index import PUBLISHED, published_set
from lfpc.records import EpisodeRecord, log_record, read_records, record_of
from lfpc.samples import Sample
from lfpc.storage.runs import EPISODES_FILE, read_run

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
Make = Callable[..., Sample]


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


def records_of(sample: Make, *said: str | None, **fields: Any) -> list[EpisodeRecord]:
    """The record of an episode per answer."""
    records = []
    for number, text in enumerate(said):
        one = sample(id=f"s{number}", **(fields or {"answer": "red kite"}))
        view = View(open_picture(one.image), WHOLE)
        turns = (Turn(Reply("look"), Crop(WHOLE), view),)
        turns += () if text is None else (Turn(Reply(text), Answer(text)),)
        stop = Stop.MAX_TURNS if text is None else Stop.ANSWERED
        records.append(record_of(Episode(one, view, turns, stop)))
    return records


def write_run(folder: Path, records: list[EpisodeRecord], **settings: Any) -> Path:
    """An evaluation with these records."""
    config = EvaluationConfig(**{"model": "m", "budget": None, "probe": "own", **settings})
    with open_evaluation(folder, config, [record.sample for record in records]) as run:
        for record in records:
            log_record(run, record.sample.id, record)
    return folder


def test_the_judge_reads_the_text_of_the_right_option_whatever_it_looks_like(
    sample: Make, judge: Any
) -> None:
    texts = ("AB", "BC", *(f"line {number}" for number in range(10)))
    for answer, reference in (("AB", "A. AB"), ("L", "L. line 9")):
        rescore(records_of(sample, "the one on top", options=texts, answer=answer), judge)
        assert f'"reference answer": "{reference}"' in judge.asked[-1]
        assert "L. line 9" in judge.asked[-1]


def test_rules_decide_what_they_can_and_the_judge_the_rest(sample: Make, judge: Any) -> None:
    records = records_of(sample, "Red kite.", "it is a kite that is red", "a dog", "maybe", None)
    found = rescore(records, judge)
    assert [one.method for one in found] == ["text", "judge", "judge", "undecided", "unparsed"]
    assert [one.correct for one in found] == [True, True, False, False, False]
    assert found[1].judge == "m (prompt 1)"
    assert "no verdict" in found[3].undecided
    assert len(judge.asked) == 3
    assert rescore(found) == records  # and back: rules alone


def test_an_option_that_is_named_needs_no_judge_and_an_unreadable_answer_does(
    sample: Make, judge: Any
) -> None:
    records = records_of(
        sample, "A", "(B) kite", "the one with the kite", options=("dog", "kite"), answer="B"
    )
    assert [needs_judge(one) for one in records] == [False, False, True]
    found = rescore(records, judge)
    assert [(one.correct, one.method) for one in found] == [
        (False, "option"),
        (True, "option"),
        (True, "judge"),
    ]
    assert '"reference answer": "B. kite"' in judge.asked[0]
    assert "A. dog" in judge.asked[0]


def test_two_different_numbers_need_no_judge(sample: Make) -> None:
    assert not needs_judge(records_of(sample, "12", answer="13")[0])


def test_a_failed_record_stays_failed_and_a_record_whose_sample_is_missing_is_named(
    tmp_path: Path, sample: Make
) -> None:
    failed = made_up_record("x", False, error="no picture")
    assert rescore([failed]) == [failed]
    run = write_run(tmp_path / "run", records_of(sample, "kite"))
    (run / "samples.jsonl").unlink()
    with pytest.raises(RunError, match=r"episodes\.jsonl:1: not a record .*no sample 's0'"):
        rescore_run(run, progress=False)


def test_a_run_is_rescored_in_place_and_the_second_time_nothing_is_written(
    tmp_path: Path, sample: Make, judge: Any
) -> None:
    run = tmp_path / "run"
    records = records_of(sample, "red kite", "some kite", "maybe")
    write_run(run / "vstar" / "own", records)
    write_run(run / "noise", records, probe="noise", task="vstar")
    figures = rescore_run(run, judge, progress=False)
    assert set(figures) == {"vstar/own", "vstar/noise"}
    assert figures["vstar/own"]["accuracy,none"] == pytest.approx(2 / 3)
    assert [
        figures["vstar/own"][f"decided/{name},none"] for name in ("rule", "judge", "undecided")
    ] == pytest.approx([1 / 3] * 3)
    lines = (run / "noise" / EPISODES_FILE).read_text().splitlines()
    assert len(lines) == 5  # two verdicts changed; the former lines are still there
    assert rescore_run(run, judge, progress=False) == figures
    assert (run / "noise" / EPISODES_FILE).read_text().splitlines() == lines
    noise = read_run(run / "noise")
    assert [one.method for one in read_records(noise).values()] == ["text", "judge", "undecided"]
    config = json.loads((run / "results.json").read_text())["configs"]["vstar/noise"]
    assert config == {"run": noise.config, "judge": judge.identity}


def test_an_evaluation_is_rescored_where_it_is_named_be_it_a_probe_alone(
    tmp_path: Path, sample: Make
) -> None:
    for probe in ("own", "noise"):
        folder = write_run(tmp_path / probe, records_of(sample, "red kite", "dog"), probe=probe)
        assert rescore_run(folder, progress=False)[probe]["accuracy,none"] == 0.5
    conditions = [
        json.loads((tmp_path / probe / "results.json").read_text())["conditions"][""]
        for probe in ("own", "noise")
    ]
    assert conditions[0]["chosen"]["summary"]["accuracy"] == 0.5
    assert conditions[1] == {}  # there is nothing that the probe could be compared with


def test_results_have_the_shape_of_the_harness_and_keep_the_protocol_when_rescored(
    tmp_path: Path, sample: Make
) -> None:
    root = tmp_path / "run"
    two = [
        replace(record, sample=replace(record.sample, image=tmp_path / f"{i}.png"))
        for i, record in enumerate(records_of(sample, "red kite", "dog"))
    ]
    folder = write_run(root / "vstar", two)
    update_results(
        root,
        protocols={folder: {"model": "m"}},
        original={folder: 191},
    )
    table = json.loads((root / "results.json").read_text())
    assert table["results"]["vstar"]["accuracy,none"] == 0.5
    assert table["results"]["vstar"]["accuracy_stderr,none"] == 0.5
    assert table["results"]["vstar"]["alias"] == "vstar"
    assert table["n-samples"] == {"vstar": {"original": 191, "effective": 2}}
    rescore_run(root, progress=False)
    again = json.loads((root / "results.json").read_text())
    assert again["configs"] == {"vstar": {"model": "m", "judge": None}}
    assert again["n-samples"] == table["n-samples"]


def test_the_judge_that_decided_stays_named_when_the_run_resumes(
    tmp_path: Path, sample: Make, judge: Any
) -> None:
    folder = write_run(tmp_path / "run", records_of(sample, "some kite"))
    rescore_run(folder, judge, progress=False)
    content = update_results(folder, protocols={folder: {"model": "m"}})
    assert content["configs"]["run"] == {"model": "m", "judge": judge.identity}


def test_seconds_that_were_measured_later_are_in_the_results(tmp_path: Path, sample: Make) -> None:
    for arm in ("", "stage1"):
        place = tmp_path / f"of {arm}" / arm / "small"
        write_run(place / "own", records_of(sample, "red kite"), arm=arm)
        root = tmp_path / f"of {arm}"
        update_results(root)
        measured = Timing(concurrency=1, questions=2, median=0.5, p95=1, per_second=4)
        write_timings(place, [measured])
        (found,) = update_results(root)["conditions"][arm].values()
        assert found["summary"]["timings"] == [asdict(measured)], arm


def test_results_of_another_format_are_not_written_over(tmp_path: Path, sample: Make) -> None:
    write_run(tmp_path / "run", records_of(sample, "red kite"))
    (tmp_path / "results.json").write_text('{"questions": 3}')
    with pytest.raises(RunError, match=r"results\.json does not have format 2"):
        rescore_run(tmp_path, progress=False)
    assert (tmp_path / "results.json").read_text() == '{"questions": 3}'


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
    ) == (1024, 1024, 1)
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
    write_run(tmp_path / "run", records_of(sample, "red kite", "dog"), task="visualprobe")
    assert cli.main(["rescore", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "visualprobe: accuracy 0.500 [" in out
    assert "of 2 records; decided by rule 100.0%" in out
    assert f"results: {tmp_path / 'run' / 'results.json'}" in out


@pytest.mark.parametrize("model", [("--judge-model", "m"), ()])
def test_the_verb_asks_a_judge_by_name_or_the_only_one_there_is(
    tmp_path: Path, sample: Make, judge: Any, capsys: Any, model: tuple[str, ...]
) -> None:
    write_run(tmp_path / "run", records_of(sample, "some kite"))
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
        (["rescore", "{}"], "no evaluation at or below it"),
        (["rescore", "{}", "--judge", "http://127.0.0.1:9/v1"], "does not list its models"),
        (["rescore", "{}", "--judge-model", "m"], "--judge-model needs --judge, the address"),
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


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_download_overwrites_another(name: str) -> None:
    folders = re.findall(r"--local-dir (\S+)", published_set(name).fetch)
    assert len(set(folders)) == len(folders)
    assert all(folder.split("/")[:2] == ["DIR", name] for folder in folders)


def test_instructions_fetch_what_is_needed_and_name_the_next_command(capsys: Any) -> None:
    said = {}
    for name in ("visualprobe", "hrbench-4k", "hrbench-8k", "mini-o3", "pixel-reasoner"):
        assert cli.main(["data", "fetch-instructions", name]) == 0
        said[name] = capsys.readouterr().out
    assert "--exclude 'videos.zip' --local-dir DIR/pixel-reasoner\n" in said["pixel-reasoner"]
    assert "DreamMr/HR-Bench (4.63 GB):" in said["hrbench-8k"]
    for part in ("Easy", "Medium", "Hard"):
        assert f"--local-dir DIR/visualprobe/VisualProbe_{part}\n" in said["visualprobe"]
    assert "--include '*4k*.tsv' --local-dir DIR/hrbench-4k\n" in said["hrbench-4k"]
    assert "--include '*8k*.tsv' --local-dir DIR/hrbench-8k\n" in said["hrbench-8k"]
    assert "Then: lfpc eval --tasks hrbench-8k --data DIR --out RUN" in said["hrbench-8k"]
    assert "Then: lfpc data import mini-o3 DIR/mini-o3 OUT" in said["mini-o3"]


def test_a_folder_without_an_evaluation_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="name a folder that lfpc eval wrote"):
        rescore_run(tmp_path)
