"""Resolution selection of the miniature (ours) and a loop over transformers' `generate`, one
question at a time (theirs).

Both get the same samples, the same base checkpoint, greedy answers and the same ladder, and must
choose the same budgets: samples a second. Target: at least 70 % of the limit. The loop is what one
would write first: for each sample the levels from the original downwards, until the answer changes;
the picture is resized by the same function, prepared by transformers' own image processor.

Beside it, with a policy that answers at once: seconds and memory of 1,000 and 10,000 samples about
pictures of their own (memory for decoded originals is bounded to 64 MiB here, so that it is full in
both).
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from statistics import median
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from bench.limit import asking_seconds
from bench.side_by_side import BenchError
from lfpc.answers import answer_key
from lfpc.dialogue import Answer, Context, Reply
from lfpc.images import View, global_view, open_picture
from lfpc.mini.folders import base_checkpoint, write_split
from lfpc.policies.qwen.checkpoint import load_checkpoint
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.samples import Sample
from lfpc.selection.config import SelectConfig
from lfpc.selection.run import select

SAMPLES = 256
LADDER = (256, 64, 36, 25)
MAX_NEW_TOKENS = 24
PROTOCOL = PROTOCOLS["qwen2_5_vl"]
CONFIG = SelectConfig(ladder=LADDER)
FEW = 1_000
MANY = 10_000
"""Samples of the policy that answers at once."""


@dataclass(frozen=True)
class Scale:
    """What many samples cost."""

    samples: int
    seconds: float
    cpu_seconds: float
    """Says more on a machine that does other things too."""
    peak_mib: float


def measure(out: Path, repeats: int) -> dict[str, Any]:
    """Ours, `repeats` times; theirs once, as it takes that long; then the growth with the number of
    samples.
    """
    folder = out / "selection"
    samples = write_split(folder / "data", "train", SAMPLES)
    model, tokenizer = load_checkpoint(base_checkpoint())
    policy = TransformersPolicy(
        model,
        tokenizer,
        PROTOCOL,
        sampling=Sampling(max_new_tokens=MAX_NEW_TOKENS),
        tools=False,
    )
    asked = _recorded(policy)
    ours: list[float] = []
    budgets: dict[str, int | None] = {}
    questions: dict[Context, Reply] = {}
    for _ in range(repeats):
        rmtree(folder / "run", ignore_errors=True)
        began = time.perf_counter()
        found = select(
            samples, policy, protocol=PROTOCOL, config=CONFIG, out=folder / "run", progress=False
        )
        ours.append(SAMPLES / (time.perf_counter() - began))
        questions = dict(asked)
        asked.clear()
        budgets = {sample.id: sample.budget for sample in found.samples}
    began = time.perf_counter()
    theirs = _one_at_a_time(samples)
    per_second = SAMPLES / (time.perf_counter() - began)
    if theirs != budgets:
        wrong = sum(theirs[name] != budgets[name] for name in theirs)
        raise BenchError(f"the sides chose different budgets for {wrong} of {SAMPLES} samples")
    scale = [_scale(folder / "scale", count) for count in (FEW, MANY)]
    tower = _tower_ms(policy, samples)
    best = asking_seconds(policy, samples, questions)
    ratio = median(ours) / per_second
    times = scale[1].cpu_seconds / scale[0].cpu_seconds
    print(
        f"selection: {ratio:.1f} times the samples a second of a loop over generate, same "
        f"budgets, {min(1, median(ours) * best / SAMPLES):.0%} of the limit (target: at least 70 %)"
    )
    print(
        f"selection: {1000 / per_second:.0f} ms a sample in the loop, "
        f"{1000 / median(ours):.0f} ms here; the vision tower alone takes "
        f"{tower:.0f} ms for a picture of the first level at its best batch"
    )
    print(
        f"selection: {MANY:,} samples took {times:.1f} times the CPU seconds of {FEW:,}; "
        f"peak memory {scale[0].peak_mib:.0f} and "
        f"{scale[1].peak_mib:.0f} MiB"
    )
    return {
        "ratio": ratio,
        "ours": median(ours),
        "theirs": per_second,
        "unit": "samples/s",
        "at_best": SAMPLES / best,
        "same_budgets": len(budgets),
        "all_ours": ours,
        "tower_ms_per_sample": tower,
        "scale": [asdict(each) for each in scale],
    }


def _recorded(policy: TransformersPolicy) -> dict[Context, Reply]:
    """What `policy` is asked from now on, with its replies."""
    found: dict[Context, Reply] = {}
    reply = policy.reply

    def recording(contexts: Sequence[Context]) -> list[Reply]:
        replies = reply(contexts)
        found.update(zip(contexts, replies, strict=True))
        return replies

    policy.reply = recording
    return found


@torch.no_grad()
def _tower_ms(policy: TransformersPolicy, samples: Sequence[Sample]) -> float:
    """Milliseconds of the vision tower for a picture of the first level, at the best of several
    batch sizes.
    """
    views = [global_view(open_picture(sample.image), LADDER[0]) for sample in samples]
    spent: list[float] = []
    for size in (1, 4, 16, 64):
        began = time.perf_counter()
        for start in range(0, len(views), size):
            policy.views.features(views[start : start + size])
        spent.append(1000 * (time.perf_counter() - began) / len(views))
    return min(spent)


@torch.no_grad()
def _one_at_a_time(samples: Sequence[Sample]) -> dict[str, int | None]:
    """Budgets by sample, with transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(base_checkpoint())
    model = AutoModelForImageTextToText.from_pretrained(
        base_checkpoint(), attn_implementation="sdpa"
    ).eval()
    pictures = Qwen2VLImageProcessorPil.from_pretrained(base_checkpoint())
    found: dict[str, int | None] = {}
    for sample in tqdm(samples, desc="one at a time", unit="sample", disable=None):
        picture = open_picture(sample.image)
        first = _generate(model, tokenizer, pictures, sample, global_view(picture, LADDER[0]))
        found[sample.id] = LADDER[-1]
        for level in LADDER[1:]:
            said = _generate(model, tokenizer, pictures, sample, global_view(picture, level))
            if answer_key(said) != answer_key(first):
                found[sample.id] = level
                break
    return found


def _generate(model: Any, tokenizer: Any, pictures: Any, sample: Sample, view: View) -> str:
    chat = [
        {"role": "system", "content": PROTOCOL.direct_system},
        {
            "role": "user",
            "content": [
                {"type": "image"},
                {"type": "text", "text": PROTOCOL.ask(sample.question, sample.options)},
            ],
        },
    ]
    pixels = pictures([view.image], do_resize=False, return_tensors="pt")
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    pads = int(pixels["image_grid_thw"].prod()) // 4
    inputs = tokenizer(
        text.replace("<|image_pad|>", "<|image_pad|>" * pads),
        return_tensors="pt",
        add_special_tokens=False,
    )
    is_picture = (inputs["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    out = model.generate(
        **inputs,
        **pixels,
        mm_token_type_ids=is_picture,
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        stop_strings=list(PROTOCOL.stop),
        tokenizer=tokenizer,
    )
    reply = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :]).removesuffix("<|im_end|>")
    action = PROTOCOL.parse(reply, (view,))
    return action.text if isinstance(action, Answer) else reply


def _scale(folder: Path, count: int) -> Scale:
    """A process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", "bench.selection_scale", str(folder), str(count)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
    )
    if done.returncode:
        raise BenchError(f"the selection of {count} samples failed: {done.stderr[-500:]}")
    return Scale(**json.loads(done.stdout.splitlines()[-1]))
