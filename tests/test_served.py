"""Served models, against a real HTTP server that plays a script and misbehaves when told to."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from chat_server import FAULTS, KEEP_STOP, STOPS, ChatServer, digest, pictures_of, script, text_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lfpc import cli
from lfpc.boxes import WHOLE
from lfpc.dialogue import Context, Reply, Usage
from lfpc.episode import episode, play
from lfpc.errors import ConfigError, PolicyError, RunError
from lfpc.evaluation.opened import OpenEvaluation, first_view
from lfpc.evaluation.probes import PROBES
from lfpc.evaluation.run import evaluate
from lfpc.images import CropRules, View
from lfpc.policies import chat_api
from lfpc.policies.backends import Server
from lfpc.policies.chat_api import NoReply, read_reply, valid_text, with_stop
from lfpc.policies.config import reply_seed
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.policies.served import ServedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.records import EpisodeRecord, read_records, record_to_json
from lfpc.samples import Sample, write_samples
from lfpc.storage.runs import Kind, RunFolder, read_run

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
RULES = CropRules(min_tokens=1, max_tokens=16)
REWARD_TERMS = {"accuracy", "format", "tool", "grounding", "length", "crops"}
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config:
    name: str = "test"


def questions(folder: Path, count: int) -> list[Sample]:
    """Questions about five random pictures; the script's answers are right for every second one."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.fromarray(
            np.random.default_rng(i).integers(0, 256, (150, 200, 3), dtype=np.uint8)
        ).save(path)
    samples = [
        Sample(id=f"s{i}", image=paths[i % 5], question=f"What is {i}?", answer="?")
        for i in range(count)
    ]
    said = play([game(sample) for sample in samples], ScriptedPolicy(say_in_process))
    return [
        replace(sample, answer=str(done.answer) if i % 2 else "?")
        for i, (sample, done) in enumerate(zip(samples, said, strict=True))
    ]


def game(sample: Sample):
    return episode(
        sample, first_view(sample, 16), look=PROBES["own"]([], RULES, 0), protocol=PROTOCOL
    )


def say_in_process(context: Context) -> str:
    """What the server's script says, from the context that a policy of this process sees."""
    seen = [
        view.image
        for view in (context.first_view, *(turn.view for turn in context.turns))
        if view is not None
    ]
    return script(context.question, len(context.turns), [digest(image) for image in seen])


def policy_of(
    server: ChatServer, *, model="scripted", tools=True, sampling=GREEDY, **options
) -> ServedPolicy:
    settings = {"base_url": server.base_url, "concurrency": 8, "timeout_s": 20.0, **options}
    return ServedPolicy(Server(**settings), model, PROTOCOL, sampling=sampling, tools=tools)


def records_of(out: Path, samples, policy, **options) -> list[EpisodeRecord]:
    look = PROBES["own"](samples, RULES, 0)
    run = RunFolder.open(out, Kind.EVALUATION, Config())
    asked = OpenEvaluation(
        samples=samples, run=run, protocol=PROTOCOL, budget=16, look=look, **options
    )
    return evaluate([asked], policy, progress=False)[0]


def comparable(records) -> list[EpisodeRecord]:
    """Records without what time and the server's counting put into them."""
    return [
        replace(
            record,
            seconds=None,
            concurrency=None,
            turns=tuple(
                replace(turn, tokens=0, prompt_tokens=None, finish="") for turn in record.turns
            ),
            truncated=None,
        )
        for record in records
    ]


def on_disk(out: Path):
    return [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("data"), 24)


@pytest.fixture(scope="module")
def expected(samples, tmp_path_factory):
    """The records of the same script in this process."""
    records = comparable(
        records_of(tmp_path_factory.mktemp("expected"), samples, ScriptedPolicy(say_in_process))
    )
    assert sum(record.correct for record in records) == 12
    assert {len(record.turns) for record in records} == {2, 3}
    return records


@pytest.mark.parametrize("style", ["vllm", "sglang", "plain", "strict"])
def test_a_served_model_gives_the_records_of_the_same_model_in_this_process(
    tmp_path, samples, expected, style
):
    with ChatServer(style=style) as server:
        records = records_of(tmp_path, samples, policy_of(server))
    assert comparable(records) == expected
    assert (
        server.refused <= 8
    )  # "strict" refuses the field it does not know only until that is noticed
    assert (server.refused > 0) == (style == "strict")


def test_records_name_tokens_as_the_server_counted_them(tmp_path, samples):
    with ChatServer() as server:
        record = records_of(tmp_path, samples[:1], policy_of(server, concurrency=3))[0]
    # the script counts 100 a message and 1 a character; system and user come first, each turn adds
    # a reply and what it was told
    assert [turn.prompt_tokens for turn in record.turns] == [
        200 + 200 * i for i in range(len(record.turns))
    ]
    assert [turn.tokens for turn in record.turns] == [len(turn.text) for turn in record.turns]
    assert {turn.finish for turn in record.turns} == {"stop"}
    assert record.concurrency == 3
    assert record.seconds > 0


def test_requests_say_what_was_asked_for(samples, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    sampling = Sampling(
        temperature=0.7, top_p=0.9, max_new_tokens=33, sampling_seed=5, extra_body={"top_k": 4}
    )
    with ChatServer() as server:
        (played,) = play([game(samples[0])], policy_of(server, sampling=sampling))
        play([game(samples[0])], policy_of(server, tools=False))
    assert server.keys == {"secret"}
    first = server.requests[0]
    direct = server.requests[-1]
    asked = {
        "model": "scripted",
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 33,
        "seed": reply_seed(5, Context("", (), played.first_view, (), samples[0].id)),
        "top_k": 4,
        KEEP_STOP: True,
    }
    assert {key: value for key, value in first.items() if key not in ("messages", "stop")} == asked
    assert tuple(first["stop"]) == STOPS
    assert "seed" not in direct
    assert text_of(first["messages"][0]) == PROTOCOL.system
    assert text_of(direct["messages"][0]) == PROTOCOL.direct_system


def test_the_seed_of_a_request_depends_on_the_question_and_the_turn_alone(samples):
    sampling = Sampling(temperature=1.0, sampling_seed=5)
    with ChatServer() as server:
        for some in (samples[:4], samples[2:4]):
            play([game(sample) for sample in some], policy_of(server, sampling=sampling))
    seeds = {}
    for request in server.requests:
        said = [one["content"] for one in request["messages"] if one["role"] == "assistant"]
        question = text_of(next(m for m in request["messages"] if m["role"] == "user"))
        seeds.setdefault((question, len(said)), set()).add(request["seed"])
    assert {len(found) for found in seeds.values()} == {1}
    assert len(set.union(*seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**31 for found in seeds.values() for seed in found)


def test_pictures_can_go_through_a_folder(tmp_path, samples, expected):
    folder = tmp_path / "a folder"
    with ChatServer() as server:
        records = records_of(tmp_path / "run", samples, policy_of(server, picture_folder=folder))
    assert comparable(records) == expected
    assert all("data:image" not in json.dumps(request) for request in server.requests)
    shown = {
        digest(picture)
        for request in server.requests
        for picture in pictures_of(request["messages"])
    }
    assert len(list(folder.iterdir())) == len(shown)


def test_each_picture_is_encoded_once(tmp_path, samples, monkeypatch):
    encoded = []
    png = chat_api.png_bytes
    monkeypatch.setattr(
        chat_api, "png_bytes", lambda view: encoded.append(digest(view.image)) or png(view)
    )
    with ChatServer() as server:
        policy = policy_of(server)
        records = records_of(tmp_path, samples, policy)
    crops = sum(record.crops for record in records)
    assert crops == 24
    assert (
        len(encoded) == 5 + crops
    )  # five pictures, which the questions share, and each question's crop
    assert len(server.requests) > len(encoded)


@pytest.mark.slow
def test_no_more_than_concurrency_at_once(tmp_path, samples):
    with ChatServer(delay_s=0.05) as server:
        records_of(tmp_path, samples, policy_of(server, concurrency=5))
    assert 2 <= server.most_running <= 5


@pytest.mark.slow
def test_a_server_that_fails_a_third_of_its_calls_costs_no_record(tmp_path, samples, expected):
    with ChatServer(faults=0.3) as server:
        records = records_of(
            tmp_path, samples, policy_of(server, timeout_s=2.0, retries=10, concurrency=16)
        )
    assert set(server.happened) == set(FAULTS)
    assert comparable(records) == expected
    assert Counter(row["key"] for row in on_disk(tmp_path)) == Counter(
        sample.id for sample in samples
    )


@pytest.mark.slow
def test_the_client_waits_for_the_retry_after_of_the_server(samples):
    times = []

    def note(question, turn, pictures):
        times.append(time.monotonic())
        return "<answer>x</answer>"

    with ChatServer(say=note) as server:
        answer = server._answer
        began = time.monotonic()

        async def busy_once(request):
            if times:
                return await answer(request)
            times.append(time.monotonic())
            return 429, {"Retry-After": 1}, b"{}"

        server._answer = busy_once
        play([game(samples[0])], policy_of(server))
    assert times[1] - times[0] >= 1.0
    assert times[0] - began < 20


def test_a_question_that_the_server_refuses_loses_only_itself(tmp_path, samples, expected):
    some = [replace(samples[0], id="bad", question="Drink poison?"), *samples]
    with ChatServer() as server:
        records = records_of(tmp_path, some, policy_of(server))
    assert records[0].error.startswith(server.base_url)
    assert "cannot read poison" in records[0].error
    assert not records[0].correct
    assert comparable(records[1:]) == expected


def test_failed_questions_are_asked_again(tmp_path, samples, expected):
    with ChatServer() as server:
        answer = server._answer

        async def refuse_some(request):
            if any(f" {i}?" in text_of(request["messages"][1]) for i in (3, 5)):
                return 401, {}, b'{"error": {"message": "who are you?"}}'
            return await answer(request)

        server._answer = refuse_some
        records = records_of(tmp_path, samples, policy_of(server))
        assert [record.sample.id for record in records if record.failed] == ["s3", "s5"]
        assert "set OPENAI_API_KEY" in records[3].error
        asked = len(server.requests)
        server._answer = answer
        records = records_of(tmp_path, samples, policy_of(server))
    assert comparable(records) == expected
    assert len({text_of(request["messages"][1]) for request in server.requests[asked:]}) == 2


@pytest.mark.parametrize(
    ("model", "says"),
    [("other", r"other.*does not exist.*model's name"), ("scripted", "cannot read poison")],
)
def test_a_run_in_which_everything_fails_is_given_up_with_the_reason(
    tmp_path, samples, model, says
):
    some = [replace(sample, question=f"poison {sample.id}") for sample in samples]
    with ChatServer(models=None) as server, pytest.raises(RunError, match=says):
        records_of(tmp_path, some, policy_of(server, model=model), max_failures=10)
    assert 11 <= len(on_disk(tmp_path)) <= 24


@pytest.mark.slow
def test_a_server_that_is_not_there_or_never_answers_is_named(samples):
    with ChatServer(faults=1.0) as server:
        server._next_fault = iter([FAULTS.index("silence")] * 9)
        with pytest.raises(
            PolicyError, match=r"127\.0\.0\.1.*no answer within 0\.2 s, asked 1 times"
        ):
            play([game(samples[0])], policy_of(server, timeout_s=0.2, retries=0))
        server._next_fault = iter([FAULTS.index("broken JSON")] * 9)
        with pytest.raises(PolicyError, match=r"a 200 without a reply: .*half.*asked 2 times"):
            play([game(samples[0])], policy_of(server, retries=1))
    with pytest.raises(PolicyError, match=rf"{server.base_url}: Connection error"):
        play([game(samples[0])], policy_of(server, retries=0))


def test_a_policy_is_entered_before_it_is_asked(samples):
    policy = ServedPolicy(Server(base_url="http://127.0.0.1:1"), "m", PROTOCOL)
    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(policy.reply_to(next(game(samples[0]))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"retries": -1},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"base_url": "localhost:8000"},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Server(**{"base_url": "http://x/v1", **wrong})


@pytest.mark.parametrize(
    ("text", "choice", "whole"),
    [
        ("a<answer>b", {"stop_reason": "</answer>"}, "a<answer>b</answer>"),
        ("a<answer>b</answer>", {"stop_reason": "</answer>"}, "a<answer>b</answer>"),
        ("a<answer>b", {"stop_reason": None}, "a<answer>b"),  # vLLM: ended by itself
        ("a<answer>b", {"stop_reason": 151645}, "a<answer>b"),
        ("a<answer>b", {"matched_stop": "</answer>"}, "a<answer>b</answer>"),
        ("a<answer>b", {}, "a<answer>b</answer>"),
        ("<answer>b</answer> <tool_call>{", {}, "<answer>b</answer> <tool_call>{</tool_call>"),
        ("<answer>b <tool_call>{", {}, "<answer>b <tool_call>{</tool_call>"),
        ("no tags", {}, "no tags"),
        ("", {}, ""),
    ],
)
def test_a_stop_text_that_was_cut_off_is_put_back(text, choice, whole):
    assert with_stop(text, STOPS, choice) == whole


def body_of(**choice) -> bytes:
    return json.dumps(
        {
            "choices": [
                {
                    "message": {"role": "assistant", "content": "<answer>b"},
                    "finish_reason": "stop",
                    **choice,
                }
            ]
        }
    ).encode()


def test_a_reply_that_ran_out_of_tokens_stays_cut():
    assert read_reply(body_of(finish_reason="length"), STOPS) == Reply("<answer>b", finish="length")
    assert read_reply(body_of(), STOPS) == Reply("<answer>b</answer>", finish="stop")


def test_an_empty_reply_is_a_reply_and_a_hidden_call_a_mistake():
    assert read_reply(body_of(message={"content": None}), STOPS).text == ""
    for content in (None, "", "Let me zoom in."):
        with pytest.raises(PolicyError, match="without a tool-call parser"):
            read_reply(body_of(message={"content": content, "tool_calls": [{"id": "1"}]}), STOPS)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("content", [None, ""])
def test_a_reply_that_a_reasoning_parser_took_away_is_an_error_that_names_the_parser(
    field, content
):
    hidden = {"content": content, field: "It is red. <answer>red</answer>"}
    with pytest.raises(PolicyError, match=f"{field}.*without a reasoning parser"):
        read_reply(body_of(message=hidden), STOPS)
    # the model was still reasoning at the token limit: a truncated reply, counted as such
    cut = read_reply(body_of(message=hidden, finish_reason="length"), STOPS)
    assert (cut.text, cut.truncated) == ("", True)
    # an answer beside the reasoning is a reply
    beside = hidden | {"content": "<answer>red</answer>"}
    assert read_reply(body_of(message=beside), STOPS).text == "<answer>red</answer>"


def test_usage_is_taken_if_it_is_there():
    found = json.loads(body_of()) | {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    assert read_reply(json.dumps(found).encode(), STOPS).usage == Usage(7, 3)
    assert (
        read_reply(json.dumps(found | {"usage": {"prompt_tokens": None}}).encode(), STOPS).usage
        is None
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(
    st.binary()
    | JSON.map(lambda value: json.dumps({"choices": [value]}).encode())
    | JSON.map(lambda value: body_of(message=value))
)
def test_whatever_a_server_sends_is_a_reply_or_said_to_be_none(body):
    try:
        reply = read_reply(body, STOPS)
    except (NoReply, PolicyError):
        return
    reply.text.encode("utf-8")


@settings(deadline=None)
@given(st.text(st.characters()))
def test_text_that_can_be_sent_is_left_alone_and_every_other_made_sendable(text):
    sendable = valid_text(text)
    sendable.encode("utf-8")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        assert "\ufffd" in sendable
    else:
        assert sendable == text


def test_half_a_character_in_a_reply_stops_nothing(tmp_path, samples):
    replies = ["odd \ud83d, no call", "<answer>\udc00</answer>"]
    with ChatServer(say=lambda question, turn, pictures: replies[turn]) as server:
        record = records_of(tmp_path, samples[:1], policy_of(server))[0]
    assert [turn.text for turn in record.turns] == [
        "odd \ufffd, no call",
        "<answer>\ufffd</answer>",
    ]


def test_a_view_is_forgotten_with_its_episode():
    urls = chat_api.PictureUrls()
    view = View(Image.new("RGB", (28, 28)), WHOLE)
    assert urls.url(view) is urls.url(view)
    assert len(urls._known) == 1
    del view
    assert len(urls._known) == 0


@pytest.mark.slow
def test_ten_kills_later_the_records_are_those_of_an_undisturbed_run(tmp_path):
    samples = questions(tmp_path / "data", 80)
    write_samples(samples, tmp_path / "data")
    with ChatServer(delay_s=0.01) as server:
        command = [
            sys.executable,
            str(HERE / "kill_and_resume.py"),
            str(tmp_path / "data"),
            str(tmp_path / "killed"),
        ]
        done = subprocess.run(
            [*command, server.base_url, "10", "1"],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        undisturbed = records_of(tmp_path / "whole", samples, policy_of(server))
    after_kill = list(map(int, done.stdout.split()))
    assert len(after_kill) == 10
    assert after_kill == sorted(after_kill)
    assert 0 < after_kill[-1] < 80
    lines = on_disk(tmp_path / "killed")
    assert Counter(line["key"] for line in lines) == Counter(sample.id for sample in samples)
    run = read_run(tmp_path / "killed")
    assert (run.config["probe"], run.config["seed"]) == ("own", 0)
    by_key = read_records(run)
    killed = [by_key[sample.id] for sample in samples]
    for record in killed:
        assert set(record_to_json(record)["reward"]) == REWARD_TERMS | {"total"}
    unrewarded = [replace(record, reward=None) for record in killed]
    assert comparable(unrewarded) == comparable(undisturbed)


def hear_ctrl_c():
    """What a shell starts in the background inherits deaf ears: the tests, too, may have been
    started so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code", "says"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")],
)
def test_ctrl_c_and_sigterm_leave_a_folder_that_resumes(tmp_path, samples, how, code, says):
    folder = write_samples(samples, tmp_path / "data").parent
    with ChatServer(delay_s=0.2) as server:
        command = [
            "eval",
            str(folder),
            "--base-url",
            server.base_url,
            "--model",
            "scripted",
            "--out",
            str(tmp_path / "out"),
        ]
        command += ["--probes", "own", "--budget", "16", "--crop-tokens", "1", "16"]
        process = subprocess.Popen(
            [sys.executable, "-m", "lfpc", *command, "--concurrency", "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_ctrl_c,
        )
        file = tmp_path / "out/16/own/episodes.jsonl"
        while process.poll() is None and not (
            file.exists() and file.read_bytes().count(b"\n") >= 2
        ):
            time.sleep(0.05)
        process.send_signal(how)
        _, heard = process.communicate(timeout=60)
        assert process.returncode == code
        assert heard.splitlines()[-1].startswith(f"lfpc: {says};")
        assert "Traceback" not in heard
        assert 2 <= len(on_disk(file.parent)) < 24
        server.delay_s = 0
        assert cli.main(command) == 0
    assert Counter(row["key"] for row in on_disk(file.parent)) == Counter(
        sample.id for sample in samples
    )


@pytest.mark.slow
def test_eval_of_a_served_model_at_two_budgets_under_a_probe(tmp_path, samples, capsys):
    folder = write_samples(samples, tmp_path / "data").parent
    with ChatServer() as server:
        command = [
            "eval",
            str(folder),
            "--base-url",
            server.base_url,
            "--model",
            "scripted",
            "--out",
            str(tmp_path / "out"),
        ]
        assert cli.main([*command, "--budget", "4", "16", "--crop-tokens", "1", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index(f"{tmp_path / 'out/16'}:") + 1 :]
    assert [line.split()[:2] for line in table[:3]] == [
        ["probe", "accuracy"],
        ["own", "50.0"],
        ["noise", "0.0"],
    ]
    assert table[2].split()[2] == "+50.0"
    figures = [line.split(":")[0] for line in lines if line.startswith(("4/", "16/"))]
    assert figures == ["4/own", "4/noise", "16/own", "16/noise"]
    closing = lines[lines.index(next(line for line in lines if line.startswith("task "))) :]
    assert [line.split()[:3] for line in closing[1:3]] == [
        ["samples", "4", "24"],
        ["samples", "16", "24"],
    ]
    assert f"results: {tmp_path / 'out' / 'results.json'}" in lines
    assert lines[-1].startswith("16: Too few questions to say: noise costs 50.0 points")
    environment = json.loads((tmp_path / "out/4/own/environment.json").read_text())
    assert environment["backend"] == server.base_url


def test_ask_prints_the_turns_and_writes_crops_and_a_page(tmp_path, samples, capsys):
    question = "What is <b>2</b>?\x1b[31m"
    out = tmp_path / "asked"
    with ChatServer(
        say=lambda q, turn, pictures: (
            script(question, turn * 2, pictures) + ("" if turn else "\x1b[2J</tool_call>")
        )
    ) as server:
        command = [
            "ask",
            str(samples[0].image),
            question,
            "--base-url",
            server.base_url,
            "--model",
            "scripted",
        ]
        assert cli.main([*command, "--out", str(out), "--budget", "16"]) == 0
    heard = capsys.readouterr().out
    assert "<tool_call>" in heard
    assert "Answer: " in heard
    assert "\x1b" not in heard
    assert heard.splitlines()[-1] == f"open {out / 'index.html'}"
    crop = Image.open(out / "crop1.png")
    assert digest(crop) in heard
    page = (out / "index.html").read_text()
    assert "<b>2</b>" not in page
    assert "What is &lt;b&gt;2&lt;/b&gt;?" in page
    assert '"answer":null' in (out / "data" / "0-0.js").read_text(), "the right answer is not known"
    assert len(list((out / "pictures").iterdir())) == 4


def test_ask_names_the_token_limit_where_it_ended_a_reply(tmp_path, samples, capsys):
    with ChatServer(say=lambda *_: "<think>first", finish="length") as server:
        command = ["ask", str(samples[0].image), "What?", "--base-url", server.base_url]
        command += ["--model", "scripted", "--max-turns", "1", "--budget", "16"]
        assert cli.main([*command, "--out", str(tmp_path / "asked")]) == 0
    heard = capsys.readouterr().out
    assert "the token limit ended this reply; raise --max-new-tokens" in heard


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "either --checkpoint, or --base-url and --model"),
        (["--base-url", "http://127.0.0.1:1/v1"], "either --checkpoint, or --base-url and --model"),
        (
            ["--checkpoint", "x", "--base-url", "http://127.0.0.1:1/v1", "--model", "m"],
            "either --checkpoint, or --base-url and --model",
        ),
        (["--base-url", "127.0.0.1:1", "--model", "m"], "not the address of an API"),
        (
            ["--base-url", "http://127.0.0.1:1/v1", "--model", "m", "--extra-body", "[1]"],
            "--extra-body must be a JSON object",
        ),
        (["--checkpoint", "x", "--engine-options", "{"], "--engine-options must be a JSON object"),
        (
            ["--checkpoint", "x", "--temperature", "-1"],
            "--temperature must be at least 0",
        ),
        (["--checkpoint", "x", "--top-p", "0"], "--top-p must be above 0 and at most 1, got 0.0"),
        (["--checkpoint", "x", "--concurrency", "0"], "concurrency must be at least 1, got 0"),
        (
            ["--base-url", "http://127.0.0.1:1/v1", "--model", "m", "--protocol", "mine"],
            "unknown protocol 'mine'",
        ),
        (
            ["--base-url", "http://127.0.0.1:1/v1", "--model", "m", "--retries", "0"],
            "Connection error",
        ),
    ],
)
def test_mistakes_at_the_command_line_are_one_sentence(tmp_path, samples, capsys, options, says):
    assert (
        cli.main(["ask", str(samples[0].image), "What?", "--out", str(tmp_path / "out"), *options])
        == 1
    )
    heard = capsys.readouterr().err
    assert says in heard
    assert len(heard.splitlines()) == 1
