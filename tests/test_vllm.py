"""A real vLLM server with the shipped checkpoint: it says what the same weights say in this
process. `make test-vllm` runs these."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import layout
import openai
import pytest

from environments import ROOT, interpreter, made
from environments.vllm_server import ENV, MODEL, VllmServer
from lfpc.dialogue import Context
from lfpc.episode import Stop
from lfpc.errors import PolicyError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.gain import read_gain, readouts
from lfpc.evaluation.opened import first_view
from lfpc.evaluation.places import place_at, place_records
from lfpc.evaluation.run import evaluate_probe
from lfpc.evaluation.search import search
from lfpc.images import LEAST_TOKENS
from lfpc.mini.folders import CROPS, write_split
from lfpc.policies.backends import Server
from lfpc.policies.chat_api import PictureUrls, chat_messages
from lfpc.policies.loading import load_policy, served_policy
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.sampling import Sampling
from lfpc.policies.served import KEEP_STOP, ServedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.protocols.reading import hermes_call
from lfpc.samples import write_samples
from lfpc.storage.runs import read_run

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        not made("vllm"),
        reason="vLLM pins other versions; .venv-vllm is missing or out of date: make test-vllm",
    ),
]
CHECKPOINT = ROOT / "src" / "lfpc" / "mini" / "checkpoint"
LOGPROB_BOUND = 2e-3
"""Largest difference of a token's log-probability between vLLM and this process, both in
float32."""
CALLS = {
    "qwen3_vl": '<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [250, '
    "500, 750, "
    "1000]}}\n</tool_call>",
    "qwen3_vl_user": '<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [250, '
    "500, 750, "
    "1000]}}\n</tool_call>",
    "qwen3_vl_text": '<tool_call>\n{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [250, '
    "500, 750, "
    "1000]}}\n</tool_call>",
    "qwen2_5_vl": '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, '
    "20, 100, "
    "90]}}</tool_call>",
    "deepeyes": '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, 20, 100, '
    "90]}}</tool_call>",
    "chain_of_focus": hermes_call("image_zoom_in_tool", {"bbox_2d": [10, 20, 100, 90]}),
    "mini_o3": '<grounding>{"bbox_2d": [0.5, 0.0, 1.0, 1.0], "source": '
    '"original_image"}</grounding>',
    "pixel_reasoner": hermes_call(
        "crop_image_normalized", {"bbox_2d": [0.1, 0.2, 0.5, 0.6], "target_image": 1}
    ),
    "ergo": "<zoom>[10, 0, 100, 100]</zoom>",
    "thyme": "<code>img = Image.open('image.jpg')\nimg.crop((0, 20, 200, "
    "300)).save('a.png')\n</code>",
}
"""A call as each protocol writes it."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def server(tmp_path_factory, pictures):
    with VllmServer(
        CHECKPOINT, log=tmp_path_factory.mktemp("vllm") / "log", pictures=pictures
    ) as running:
        yield running


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("data"), "hard-test", 48)


def config(**fields) -> EvaluationConfig:
    """The demo's settings at its small budget."""
    given = {
        "model": MODEL,
        "budget": 25,
        "probe": "own",
        "crop": CROPS,
        "max_turns": 3,
        "max_new_tokens": 24,
    } | fields
    return EvaluationConfig(**given)


def ask(server, samples, settings: EvaluationConfig, out: Path, **options):
    policy = served_policy(
        settings, Server(**{"base_url": server.base_url, "retries": 1} | options)
    )
    return evaluate_probe(policy, samples, settings, out, progress=False)


def said(records):
    return [[turn.text for turn in record.turns] for record in records]


def contexts_of(samples, out: Path) -> list[Context]:
    """What the policy saw before each of its replies; records go to `out`."""
    seen: list[Context] = []

    class Recorder:
        def reply(self, contexts):
            seen.extend(contexts)
            return here.reply(contexts)

    here = load_policy(config(model=str(CHECKPOINT)))
    evaluate_probe(Recorder(), samples, config(model=str(CHECKPOINT)), out, progress=False)
    return seen


@pytest.fixture(scope="module")
def here(samples, tmp_path_factory):
    """Records of the same weights in this process, under the own crops."""
    settings = config(model=str(CHECKPOINT))
    return evaluate_probe(
        load_policy(settings), samples, settings, tmp_path_factory.mktemp("here"), progress=False
    )


@pytest.mark.parametrize("concurrency", [1, 32])
def test_greedy_episodes_are_those_of_this_process_one_at_a_time_and_32_at_once(
    server, samples, here, tmp_path, concurrency
):
    some = samples if concurrency > 1 else samples[:8]
    records = ask(server, some, config(), tmp_path, concurrency=concurrency)
    assert said(records) == said(here[: len(some)])
    assert [record.correct for record in records] == [
        record.correct for record in here[: len(some)]
    ]
    assert sum(record.crops for record in records) >= len(some) / 2  # several turns, with crops
    assert {record.concurrency for record in records} == {concurrency}


def test_episodes_under_noise_agree_too(server, samples, tmp_path):
    settings = config(model=str(CHECKPOINT), probe="noise")
    expected = evaluate_probe(
        load_policy(settings), samples[:16], settings, tmp_path / "here", progress=False
    )
    assert said(ask(server, samples[:16], config(probe="noise"), tmp_path / "served")) == said(
        expected
    )


def test_the_server_counts_the_tokens_that_we_count(server, samples, here, tmp_path):
    records = ask(server, samples[:16], config(), tmp_path)
    for count in (
        "prompt_tokens",
        "tokens",
    ):  # what was read, visual tokens included, and what was written
        assert [[getattr(turn, count) for turn in record.turns] for record in records] == [
            [getattr(turn, count) for turn in record.turns] for record in here[:16]
        ]


def test_log_probabilities_agree_within_the_bound(server, samples, tmp_path):
    policy = load_policy(config(model=str(CHECKPOINT)))
    contexts = contexts_of(samples[:24], tmp_path)
    assert any(context.turns for context in contexts)
    apart: list[float] = []
    with openai.OpenAI(base_url=server.base_url, api_key="none") as client:
        for context, ours in zip(contexts, policy.reply(contexts), strict=True):
            messages = chat_messages(config().chat.messages(context), PictureUrls())
            found = client.chat.completions.create(
                model=MODEL,
                messages=messages,
                temperature=0,
                max_tokens=24,
                logprobs=True,
                stop=list(config().chat.stop),
                extra_body={KEEP_STOP: True},
            )
            theirs = [token.logprob for token in found.choices[0].logprobs.content]
            assert len(theirs) == len(ours.logprobs)
            apart += [abs(a - b) for a, b in zip(theirs, ours.logprobs, strict=True)]
    assert len(apart) > 200
    assert max(apart) < LOGPROB_BOUND  # 5.3e-4 when this was written


def test_a_stop_text_stays_and_is_put_back_where_the_server_cut_it_off(server, samples):
    context = Context(samples[0].question, (), first_view(samples[0], 25), ())
    chat = config().chat
    sampling = Sampling(max_new_tokens=24)
    kept = ServedPolicy(Server(base_url=server.base_url), MODEL, chat, sampling=sampling)
    cut = ServedPolicy(
        Server(base_url=server.base_url),
        MODEL,
        chat,
        sampling=replace(sampling, extra_body={KEEP_STOP: False}),
    )
    (first,) = kept.reply([context])
    (second,) = cut.reply([context])
    assert first.text.endswith(chat.stop)
    assert (first.text, first.finish) == (second.text, "stop")
    short = ServedPolicy(
        Server(base_url=server.base_url), MODEL, replace(chat, stop=(", ",)), sampling=sampling
    ).reply([context])[0]
    assert short.text.endswith(", ")
    assert short.text.count(", ") == 1 + first.text[: len(short.text)].count('", "')
    assert first.text.startswith(short.text)


def test_a_reply_without_room_is_cut_and_marked(server, samples, tmp_path):
    record = ask(server, samples[:1], config(max_new_tokens=3, max_turns=1), tmp_path)[0]
    assert (record.turns[0].finish, record.turns[0].tokens, record.stop) == (
        "length",
        3,
        Stop.MAX_TURNS,
    )


def test_pictures_go_as_files_where_the_server_allows_it(server, samples, here, pictures, tmp_path):
    records = ask(server, samples[:8], config(), tmp_path, picture_folder=pictures)
    assert said(records) == said(here[:8])
    assert len(list(pictures.glob("*.png"))) >= 16  # first views and crops
    context = Context(samples[0].question, (), first_view(samples[0], 25), ())
    outside = ServedPolicy(
        Server(base_url=server.base_url, retries=0, picture_folder=tmp_path / "elsewhere"),
        MODEL,
        config().chat,
    )
    with pytest.raises(PolicyError, match="allowed-local-media-path"):
        outside.reply([context])


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_every_protocol_plays_several_turns_with_crops(server, samples, tmp_path, name):
    """The tiny model speaks one protocol only; guided decoding has it write a call of each."""
    guided = {"structured_outputs": {"choice": [CALLS[name]]}}
    least = max(16, LEAST_TOKENS[PROTOCOLS[name].factor])
    settings = config(
        protocol=name,
        crop=replace(PROTOCOLS[name].crop, min_tokens=4, max_tokens=least),
        budget=least,
        extra_body=guided,
        max_new_tokens=400,
    )
    for record in ask(server, samples[:2], settings, tmp_path):
        assert not record.failed, record.error
        assert len(record.turns) == min(3, PROTOCOLS[name].turns or 3)
        assert {turn.text for turn in record.turns} == {CALLS[name]}
        # a call of the last turn is followed by no reply, so it is no crop
        assert record.calls == record.crops == len(record.turns) - 1
        read = [turn.prompt_tokens for turn in record.turns]
        assert read == sorted(set(read))  # every turn reads what was said and shown before


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "other"}, "has no model 'other'; it has mini"),
        ({"budget": 256, "max_new_tokens": 4000}, "max_"),
    ],
)
def test_what_the_server_refuses_is_one_sentence(server, samples, settings, says):
    asked = config(**settings)
    context = Context(samples[0].question, (), first_view(samples[0], asked.budget), ())
    with pytest.raises(PolicyError, match=says):
        served_policy(asked, Server(base_url=server.base_url, retries=0)).reply([context])


def test_vllm_in_its_own_process_answers_the_same_with_a_checkpoint_as_we_save_it(
    samples, here, tmp_path
):
    """A folder without any file of its source but the weights' and tokenizer's, as
    `save_checkpoint` writes it."""
    model, tokenizer = load_checkpoint(CHECKPOINT)
    saved = save_checkpoint(model, tokenizer, tmp_path / "saved")
    write_samples(samples[:16], samples[0].image.parents[1] / "some")
    engine = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 2048,
        "limit_mm_per_prompt": {"image": 4, "video": 0},
    }
    asked = [
        "--checkpoint",
        saved,
        "--engine",
        "vllm",
        "--engine-options",
        json.dumps(engine),
        "--budget",
        "25",
    ]
    rules = [
        "--crop-tokens",
        "16",
        "25",
        "--max-turns",
        "3",
        "--max-new-tokens",
        "24",
        "--probes",
        "own",
    ]
    command = [
        interpreter("vllm"),
        "-m",
        "lfpc",
        "eval",
        samples[0].image.parents[1] / "some",
        *asked,
        *rules,
        "--out",
        tmp_path / "run",
    ]
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **ENV, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    records = place_records(place_at(tmp_path / "run" / "25"))["own"]
    assert said(records) == said(here[:16])
    assert [[turn.tokens for turn in record.turns] for record in records] == [
        [turn.tokens for turn in record.turns] for record in here[:16]
    ]


def test_the_gain_of_a_crop_is_the_same_from_the_server(server, samples, tmp_path):
    """Right answers after the recorded replies, under the own crop and under noise."""
    settings = config()
    ask(server, samples[:8], settings, tmp_path / "own")
    there = read_gain(
        tmp_path,
        ("noise",),
        policy=served_policy(settings, Server(base_url=server.base_url)),
        progress=False,
    )
    shutil.rmtree(tmp_path / "gain")
    local = load_policy(replace(settings, model=str(CHECKPOINT)))
    here = read_gain(tmp_path, ("noise",), policy=local, progress=False)
    assert here["n"] >= 4
    assert there["logprob"] == pytest.approx(here["logprob"], abs=LOGPROB_BOUND)
    assert there["looks"]["noise"]["delta"] == pytest.approx(
        here["looks"]["noise"]["delta"], abs=LOGPROB_BOUND
    )


def test_a_search_is_the_same_from_the_server(server, samples, tmp_path):
    """The answers after four tiles, and how sure the model is of each."""
    settings = config()
    ask(server, samples[:6], settings, tmp_path / "own")
    there = search(
        tmp_path,
        (2,),
        policy=served_policy(settings, Server(base_url=server.base_url)),
        progress=False,
    )
    logprobs = readouts(read_run(tmp_path / "search" / "logprobs"), samples)
    shutil.rmtree(tmp_path / "search")
    local = load_policy(replace(settings, model=str(CHECKPOINT)))
    here = search(tmp_path, (2,), policy=local, progress=False)
    assert here["n"] >= 4
    assert there == here
    again = readouts(read_run(tmp_path / "search" / "logprobs"), samples)
    assert {key: one.logprob for key, one in logprobs.items()} == pytest.approx(
        {key: one.logprob for key, one in again.items()}, abs=LOGPROB_BOUND
    )


@pytest.mark.parametrize("family", layout.FAMILIES)
def test_vllm_in_its_own_process_answers_a_published_folder_as_this_process_does(
    samples, tmp_path, family
):
    folder = layout.published(tmp_path / "checkpoint", family)
    data = write_samples(samples[:4], samples[0].image.parents[1] / f"few-{family}")
    engine = {"dtype": "float32", "enforce_eager": True, "max_model_len": 2048}
    words = ["eval", data, "--checkpoint", folder, "--budget", "100", "--max-new-tokens", "8"]
    # one turn: vLLM reads texts, and random tokens are not what their text is read as
    words += ["--max-turns", "1", "--probes", "own", "--out"]
    vllm = ["--engine", "vllm", "--engine-options", json.dumps(engine)]
    for name, python, more in (
        ("vllm", interpreter("vllm"), vllm),
        ("here", sys.executable, []),
    ):
        command = [python, "-m", "lfpc", *words, tmp_path / name, *more]
        done = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **ENV, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    there, own = (
        place_records(place_at(tmp_path / name / "100"))["own"] for name in ("vllm", "here")
    )
    assert said(there) == said(own)
    read = [[turn.prompt_tokens for turn in record.turns] for record in there]
    assert read == [[turn.prompt_tokens for turn in record.turns] for record in own]
