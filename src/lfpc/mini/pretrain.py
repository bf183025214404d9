"""`lfpc mini pretrain`: the base checkpoint from nothing, by supervision on generated scenes.

Three phases: dense targets for the vision tower (`dense`); dialogues for the whole model
(`dialogue`), in which some steps still use the dense targets; then more two-picture dialogues, in
which a crop cannot be trusted (`settle`). A model that starts to read relies on crops, which are
easier than the whole picture; this phase undoes that. Every batch is a function of (seed, phase,
step), so a resumed run is bit-identical to an uninterrupted one.
"""

import json
import math
import time
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lfpc.errors import CheckpointError
from lfpc.mini.config import PretrainConfig
from lfpc.mini.dense import DenseHeads, dense_batch, dense_loss
from lfpc.mini.dialogue_batch import collate, dialogue_loss
from lfpc.mini.dialogues import (
    MIXED,
    SETTLED,
    SINGLE,
    CropShares,
    DialogueRules,
    dialogue_rows,
)
from lfpc.mini.folders import BASE_SETTINGS
from lfpc.mini.model import build_model, build_tokenizer, picture_processor
from lfpc.mini.scenes import MARKS
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.qwen.varlen import speed_up_vision
from lfpc.policies.spawning import end_with_parent
from lfpc.storage.files import FolderLock, atomic_file


class PretrainModel:
    """The model, the heads, and the loss of a step of either phase; the same from the same
    configuration.
    """

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        self.tokenizer = build_tokenizer()
        self.model: Any = build_model(self.tokenizer, config.seed)
        if config.init is not None:
            self.model.load_state_dict(load_checkpoint(config.init)[0].state_dict())
        speed_up_vision(self.model)
        self.encode = lru_cache(maxsize=100_000)(
            lambda text: self.tokenizer(text, add_special_tokens=False).input_ids
        )
        self.heads = DenseHeads(self.model.config.text_config.hidden_size, self.encode)
        self.marks = torch.tensor([self.encode(mark)[0] for mark in MARKS])

    def weights(self) -> dict[str, torch.nn.Parameter]:
        """Every parameter once, by name."""
        return dict(
            torch.nn.ModuleDict({"model": self.model, "heads": self.heads}).named_parameters()
        )

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Load these weights."""
        for name, weight in self.weights().items():
            weight.data.copy_(weights[name])

    def groups(self, phase: str) -> list[tuple[list[torch.nn.Parameter], float]]:
        """Parameter groups of a phase, each with its share of the learning rate."""
        vision = [*self.model.model.visual.parameters(), *self.heads.parameters()]
        whole = self.config.settle_rate if phase == "settle" else 1.0
        return (
            [(vision, 1.0)]
            if phase == "dense"
            else [
                (vision, 0.7 * whole),
                (list(self.model.model.language_model.parameters()), whole),
            ]
        )

    def loss(
        self, phase: str, rng: np.random.Generator, done: float
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and facts of one step, `done` in [0, 1] into its phase."""
        config = self.config
        table = self.model.get_input_embeddings().weight
        if phase == "dense" or rng.random() < config.dense_share:
            progress = min(1.0, max(0.0, (done - 0.35) / 0.5)) if phase == "dense" else 1.0
            batch = dense_batch(rng, progress, config.scenes, wide=config.wide)
            return dense_loss(self.model.model.visual, self.heads, table, batch)
        kinds = SETTLED if phase == "settle" else MIXED if done > 0.35 or config.init else SINGLE
        kind, rows = dialogue_rows(
            rng,
            kinds,
            DialogueRules(
                scenes=config.scenes,
                shares=crop_shares(config, phase),
                wide=config.wide,
                spread=config.spread,
                zoom=config.zoom,
            ),
        )
        image_id = self.model.config.image_token_id
        pad_id = self.tokenizer.get_vocab()["<|endoftext|>"]
        return dialogue_loss(
            self.model, self.heads, kind, collate(rows, self.encode, image_id, pad_id), self.marks
        )


def crop_shares(config: PretrainConfig, phase: str) -> CropShares:
    """Shares of crops in the two-picture dialogues of a phase."""
    return CropShares(
        config.hit, config.contradict if phase == "settle" else 0.0, config.unreadable
    )


def pretrain(config: PretrainConfig, *, progress: bool = True) -> Path:
    """Train the base checkpoint, continuing from the state in `config.out` if there is one. Returns
    `config.out / "checkpoint"`.

    Raises:
        RunError: another process writes in `config.out`.
    """
    with FolderLock(config.out):
        return _pretrain(config, progress=progress)


def _pretrain(config: PretrainConfig, *, progress: bool) -> Path:
    learner = PretrainModel(config)
    for number, (phase, steps) in enumerate(config.phases.items(), 1):
        job = PhaseJob(config, phase, number, steps)
        if job.state(0).exists():
            state = torch.load(job.state(0), weights_only=True)
            learner.load(state["weights"])
            job.next_step.value = state["step"]
        _run_together(job, learner, progress=progress)
    return save_checkpoint(
        learner.model,
        learner.tokenizer,
        config.out / "checkpoint",
        processor=picture_processor(),
        settings=BASE_SETTINGS,
    )


class PhaseJob:
    """One phase as its workers see it."""

    def __init__(self, config: PretrainConfig, phase: str, number: int, steps: int) -> None:
        self.config = config
        self.phase = phase
        self.number = number
        self.steps = steps
        self.next_step: Any = torch.multiprocessing.get_context("spawn").Value("q", 0)

    def state(self, worker: int) -> Path:
        """State of `worker` to resume from; worker 0's includes the weights."""
        return self.config.out / (f"{self.phase}.{worker}.pt" if worker else f"{self.phase}.pt")

    def take_step(self) -> int:
        """The number of the next step."""
        with self.next_step.get_lock():
            self.next_step.value += 1
            return self.next_step.value - 1


def _run_together(job: PhaseJob, learner: PretrainModel, *, progress: bool) -> None:
    """Steps of one phase by `config.workers` processes that share the weights (Hogwild: updates
    without locks).
    """
    context = torch.multiprocessing.get_context("spawn")
    weights = {name: weight.data.share_memory_() for name, weight in learner.weights().items()}
    threads = torch.get_num_threads()
    others = [
        context.Process(target=_help, args=(job, worker, weights), daemon=True)
        for worker in range(1, job.config.workers)
    ]
    for process in others:
        process.start()
    if others:
        torch.set_num_threads(1)
    try:
        _work(job, 0, learner, progress=progress)
    finally:
        job.next_step.value = job.steps  # after any failure here, no worker takes another step
        torch.set_num_threads(threads)
        for process in others:
            process.join()
    if failed := [process for process in others if process.exitcode]:
        raise CheckpointError(
            f"{len(failed)} worker(s) of {job.phase!r} failed; their message is above"
        )


def _help(job: PhaseJob, worker: int, weights: dict[str, torch.Tensor]) -> None:
    """Another process: the same learner on the shared weights."""
    end_with_parent()
    torch.set_num_threads(1)
    learner = PretrainModel(job.config)
    for name, weight in learner.weights().items():
        weight.data = weights[name]
    _work(job, worker, learner, progress=False)


def _work(job: PhaseJob, worker: int, learner: PretrainModel, *, progress: bool) -> None:
    """Take steps until there are none; the state is `<phase>.pt`, the curve `<phase>.jsonl`, in the
    run's folder.
    """
    config = job.config
    groups = learner.groups(job.phase)
    trained = learner.weights().values()
    optimizer = torch.optim.AdamW(
        [{"params": some} for some, _ in groups], betas=(0.9, 0.98), weight_decay=0.01
    )
    if job.state(worker).exists() and job.next_step.value < job.steps:
        optimizer.load_state_dict(torch.load(job.state(worker), weights_only=True)["optimizer"])
    curve: dict[str, list[float]] = defaultdict(list)
    began = time.perf_counter()
    taken = 0
    with tqdm(
        initial=job.next_step.value, total=job.steps, desc=job.phase, disable=not progress
    ) as bar:
        while (step := job.take_step()) < job.steps:
            done = step / job.steps
            for group, (_, share) in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = (
                    share
                    * config.learning_rate
                    * min(1, (step + 1) / 100)
                    * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
                )
            loss, facts = learner.loss(
                job.phase, np.random.default_rng([config.seed, job.number, step]), done
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            taken += 1
            bar.update(step + 1 - bar.n)
            for name, value in facts.items():
                curve[name].append(value)
            if taken % 50 == 0:
                row = {
                    "step": step + 1,
                    "worker": worker,
                    "seconds": round(time.perf_counter() - began, 1),
                }
                row |= {
                    name: round(float(np.nanmean(values)), 4)
                    for name, values in sorted(curve.items())
                }
                with (config.out / f"{job.phase}.jsonl").open("a") as out:
                    out.write(json.dumps(row) + "\n")
                curve.clear()
            if taken % max(1, config.save_every // config.workers) == 0:
                _save(job, worker, learner, optimizer, step + 1)
    _save(job, worker, learner, optimizer, job.steps)


def _save(
    job: PhaseJob, worker: int, learner: PretrainModel, optimizer: torch.optim.Optimizer, step: int
) -> None:
    state: dict[str, Any] = {"optimizer": optimizer.state_dict(), "step": step}
    if worker == 0:
        state["weights"] = {name: weight.data for name, weight in learner.weights().items()}
    with atomic_file(job.state(worker), "wb") as out:
        torch.save(state, out)
