"""Evaluating a served model (ours) and a bare asyncio loop (theirs) that sends the same requests
with the same client.

400 questions at concurrency 64 to a server that answers at once, so that little but the clients'
work is timed: seconds and CPU seconds per question (the latter say more on a machine that does
other things too), medians over repeats that take turns. Ours opens and resizes pictures, cuts and
encodes every crop, reads every reply and writes every row; theirs has its messages ready and throws
the replies away. The questions share eight small pictures: what decoding large ones costs is
another benchmark's business. Target: at most 1.1 times the CPU seconds.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from statistics import median
from typing import Any

import numpy as np
import openai
from PIL import Image

from bench.side_by_side import BenchError
from lfpc.boxes import Box
from lfpc.dialogue import Reply
from lfpc.episode import Game, episode
from lfpc.evaluation.opened import OpenEvaluation, first_view
from lfpc.evaluation.run import Asked, evaluate
from lfpc.images import CropRules, crop_view, global_view, open_picture, png_bytes
from lfpc.looks import original_look
from lfpc.playing.processes import Setup
from lfpc.policies.backends import Server
from lfpc.policies.chat_api import PictureUrls, chat_messages
from lfpc.policies.served import KEEP_STOP, ServedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.records import EpisodeRecord
from lfpc.samples import Sample
from lfpc.storage.runs import Kind, RunFolder

QUESTIONS = 400
CONCURRENCY = 64
BUDGET = 64
PROTOCOL = PROTOCOLS["qwen2_5_vl"]
RULES = CropRules(min_tokens=4, max_tokens=16)
LOOK = original_look(RULES)
BOX = Box(0.05, 0.1, 0.3, 0.4)
"""About the region that the replies ask for."""
REPLIES = (
    'I look closer.\n<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": '
    "[10, 20, 66, 76]}}</tool_call>",
    "<answer>red</answer>",
)
Conversation = Sequence[list[dict[str, Any]]]
"""The messages of each request of one question, in order."""


@dataclass(frozen=True)
class Nothing:
    """A run that has no settings."""


def measure(root: Path, out: Path, *, repeats: int = 5) -> dict[str, Any]:
    """Both sides in turn, `repeats` times after one that is not counted."""
    samples = _samples(out / "eval_overhead")
    conversations = [conversation_of(sample) for sample in samples]
    ours = []
    theirs = []
    with served(root) as base_url:
        for number in range(repeats + 1):
            pair = (
                _timed(lambda: evaluated(samples, base_url, out / "eval_overhead" / "run")),
                _timed(lambda: bare_loop(conversations, base_url)),
            )
            if number:
                ours.append(pair[0])
                theirs.append(pair[1])
    wall, cpu = (
        {"ours": median(a[i] for a in ours), "theirs": median(b[i] for b in theirs)} for i in (0, 1)
    )
    pictures = _picture_seconds(samples[: len({sample.image for sample in samples})]) / QUESTIONS
    times = wall["ours"] / wall["theirs"]
    print(
        f"eval_overhead: {times:.2f} times as long as a bare loop, with "
        f"{cpu['ours'] / cpu['theirs']:.2f} times its CPU seconds (target: at most 1.1)"
    )
    return {
        "ratio": wall["theirs"] / wall["ours"],
        **wall,
        "unit": "s/question",
        "at_best": wall["theirs"] + pictures,
        "cpu_seconds_per_question": cpu,
        "times_as_long": times,
        "all_ours": [seconds for seconds, _ in ours],
        "all_theirs": [seconds for seconds, _ in theirs],
    }


def _picture_seconds(samples: Sequence[Sample]) -> float:
    """Seconds to decode the picture of each sample, and to make and pack the view and the crop that
    are asked for, once.
    """
    began = time.perf_counter()
    for sample in samples:
        picture = open_picture.__wrapped__(sample.image)
        for view in (global_view(picture, BUDGET), crop_view(picture, BOX, RULES)):
            png_bytes(view)
    return time.perf_counter() - began


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds of a call, of all threads of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def _timed(play: Callable[[], None]) -> tuple[float, float]:
    """Seconds and CPU seconds (of all threads of this process) per question."""
    began = time.perf_counter(), time.process_time()
    play()
    return (time.perf_counter() - began[0]) / QUESTIONS, (
        time.process_time() - began[1]
    ) / QUESTIONS


def policy_of(base_url: str, concurrency: int = CONCURRENCY) -> ServedPolicy:
    """The served model."""
    return ServedPolicy(Server(base_url=base_url, concurrency=concurrency), "scripted", PROTOCOL)


def evaluated(
    samples: Sequence[Sample],
    base_url: str,
    folder: Path,
    *,
    budget: int = BUDGET,
    concurrency: int = CONCURRENCY,
    processes: int = 1,
    setup: Setup[Asked, EpisodeRecord] | None = None,
) -> None:
    """Our evaluation of the samples.

    Raises:
        BenchError: a question was not answered as the server says it answers.
    """
    rmtree(folder, ignore_errors=True)
    run = RunFolder.open(folder, Kind.EVALUATION, Nothing())
    asked = OpenEvaluation(samples=samples, run=run, protocol=PROTOCOL, budget=budget, look=LOOK)
    (records,) = evaluate(
        [asked],
        policy_of(base_url, concurrency),
        progress=False,
        processes=processes,
        setup=setup,
    )
    if not all(record.correct and record.crops == 1 for record in records):
        raise BenchError("a question was not answered as the server says it answers")


def bare_loop(conversations: Sequence[Conversation], base_url: str) -> None:
    """The requests of the conversations."""
    asyncio.run(_bare_loop(conversations, base_url))


async def _bare_loop(conversations: Sequence[Conversation], base_url: str) -> None:
    slots = asyncio.Semaphore(CONCURRENCY)
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none") as client:

        async def ask(conversation: Conversation) -> None:
            async with slots:
                for messages in conversation:
                    await client.chat.completions.create(
                        model="scripted",
                        messages=messages,  # pyright: ignore[reportArgumentType]
                        temperature=0.0,
                        top_p=1.0,
                        max_tokens=512,
                        stop=list(PROTOCOL.stop),
                        extra_body={KEEP_STOP: True},
                    )

        await asyncio.gather(*map(ask, conversations))


def _samples(folder: Path) -> list[Sample]:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(8):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            (1024, 768), Image.Resampling.BICUBIC
        )
        fine = np.asarray(coarse, dtype=np.int16) + rng.normal(0, 3, (768, 1024, 3)).astype(
            np.int16
        )
        Image.fromarray(np.clip(fine, 0, 255).astype(np.uint8)).save(
            folder / f"{i}.png", compress_level=1
        )
    return [
        Sample(
            id=str(i), image=folder / f"{i % 8}.png", question=f"Which colour is {i}?", answer="red"
        )
        for i in range(QUESTIONS)
    ]


def conversation_of(sample: Sample, *, budget: int = BUDGET) -> Conversation:
    """What `evaluated` sends for a sample."""
    game: Game = episode(sample, first_view(sample, budget), look=LOOK, protocol=PROTOCOL)
    context = next(game)
    urls = PictureUrls()
    found = []
    for text in REPLIES:
        found.append(chat_messages(PROTOCOL.messages(context), urls))
        if text is not REPLIES[-1]:
            context = game.send(Reply(text))
    return found


@contextmanager
def served(root: Path, replies: Sequence[str] = REPLIES) -> Iterator[str]:
    """The tests' server in a process of its own, answering at once; yields its address."""
    command = [sys.executable, str(root / "tests" / "chat_server.py"), *replies]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise BenchError("the server did not start")
        yield address
        process.stdin.close()
