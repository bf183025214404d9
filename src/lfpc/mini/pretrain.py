"""`lfpc mini pretrain`: the base checkpoint from nothing, by supervision on generated scenes.

Two phases: dense targets for the vision tower (`dense`), then dialogues for the whole model (`dialogues`), in which some steps
go on with the dense targets. Every batch is a function of (seed, phase, step), so a run that was stopped continues as if it
had not been.
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lfpc.mini.dense import Heads, dense_batch, dense_loss
from lfpc.mini.dialogues import collate, dialogue_loss, dialogue_rows
from lfpc.mini.model import build_model, build_tokenizer, save_pretrained
from lfpc.mini.scenes import MARKS
from lfpc.policies.checkpoint import load_checkpoint
from lfpc.policies.varlen import speed_up_vision


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """The base checkpoint's training."""

    out: Path = Path("out/mini-base")
    """Checkpoint folder, and the state to continue from."""
    init: Path | None = None
    """Checkpoint whose weights a new run starts from; None: fresh ones."""
    dense_steps: int = 6000
    """Steps of the vision phase."""
    dialogue_steps: int = 10_000
    """Steps of the language phase."""
    dense_share: float = 0.2
    """Share of the language phase's steps that go on with the dense targets."""
    learning_rate: float = 1e-3
    """Peak of both phases; linear warm-up over 100 steps, then cosine to a tenth."""
    scenes: int = 4000
    """Distinct pictures drawn from."""
    hit: float = 0.3
    """Share of two-picture dialogues whose crop is about the right object."""
    seed: int = 0
    """Of weights and batches."""
    save_every: int = 200
    """Steps between states on disk."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One of the two phases: what is trained, and how a step's loss comes about."""

    name: str
    number: int
    steps: int
    parameters: list[tuple[list[torch.nn.Parameter], float]]
    """Groups of parameters, each with its share of the learning rate."""
    loss: Callable[[np.random.Generator, float], tuple[torch.Tensor, dict[str, float]]]


def pretrain(config: PretrainConfig, *, progress: bool = True) -> Path:
    """Train the base checkpoint into `config.out`, continuing from the state there if there is one. Returns the folder."""
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer()
    model: Any = build_model(tokenizer, config.seed)
    if config.init is not None:
        model.load_state_dict(load_checkpoint(config.init)[0].state_dict())
    speed_up_vision(model.model.visual)
    encode = lru_cache(maxsize=100_000)(lambda text: tokenizer(text, add_special_tokens=False).input_ids)
    heads = Heads(model.config.text_config.hidden_size, encode)
    table = model.get_input_embeddings().weight
    image_id, pad_id = model.config.image_token_id, tokenizer.get_vocab()["<|endoftext|>"]

    def dense(rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        return dense_loss(model.model.visual, heads, table, dense_batch(rng, min(1.0, max(0.0, (done - 0.35) / 0.5)), config.scenes))

    def dialogue(rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        if rng.random() < config.dense_share:
            return dense_loss(model.model.visual, heads, table, dense_batch(rng, 1.0, config.scenes))
        kind, rows = dialogue_rows(rng, done, scenes=config.scenes, hit=config.hit)
        return dialogue_loss(model, heads, kind, collate(rows, encode, image_id, pad_id), marks)

    marks = torch.tensor([encode(mark)[0] for mark in MARKS])
    vision = [*model.model.visual.parameters(), *heads.parameters()]
    phases = [
        Phase("dense", 1, config.dense_steps, [(vision, 1.0)], dense),
        Phase("dialogue", 2, config.dialogue_steps, [(vision, 0.7), (list(model.model.language_model.parameters()), 1.0)], dialogue),
    ]
    config.out.mkdir(parents=True, exist_ok=True)
    for phase in phases:
        run_phase(phase, model, heads, config, progress=progress)
    save_pretrained(model, tokenizer, config.out)
    return config.out


def run_phase(phase: Phase, model: torch.nn.Module, heads: torch.nn.Module, config: PretrainConfig, *, progress: bool) -> None:
    """Run or continue one phase; its state is `<phase>.pt` in `config.out`, its curve `<phase>.jsonl`."""
    optimizer = torch.optim.AdamW([{"params": some} for some, _ in phase.parameters], betas=(0.9, 0.98), weight_decay=0.01)
    file, start = config.out / f"{phase.name}.pt", 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        start = state["step"]
        if start < phase.steps:
            optimizer.load_state_dict(state["optimizer"])
    curve: dict[str, list[float]] = defaultdict(list)
    began = time.perf_counter()
    for step in tqdm(range(start, phase.steps), initial=start, total=phase.steps, desc=phase.name, disable=not progress):
        done = step / phase.steps
        for group, (_, share) in zip(optimizer.param_groups, phase.parameters, strict=True):
            group["lr"] = share * config.learning_rate * min(1, (step + 1) / 100) * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
        loss, facts = phase.loss(np.random.default_rng([config.seed, phase.number, step]), done)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([parameter for some, _ in phase.parameters for parameter in some], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        for name, value in facts.items():
            curve[name].append(value)
        if (step + 1) % 50 == 0:
            row = {"step": step + 1, "seconds": round(time.perf_counter() - began, 1)}
            row |= {name: round(float(np.nanmean(values)), 4) for name, values in sorted(curve.items())}
            with (config.out / f"{phase.name}.jsonl").open("a") as out:
                out.write(json.dumps(row) + "\n")
            curve.clear()
        if (step + 1) % config.save_every == 0 or step + 1 == phase.steps:
            draft = file.with_suffix(".part")
            state = {"model": model.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, draft)
            draft.replace(file)
