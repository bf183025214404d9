"""The training loop on one device: steps, validation, checkpoints, metrics.

A step is a function of (weights, optimiser, seed, step), so a resumed run is bit-identical to an
uninterrupted one.
"""

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lfpc.errors import LfpcError
from lfpc.playing.stopping import Terminated, held
from lfpc.policies.qwen.checkpoint import check_folder
from lfpc.records import log_record, record_of
from lfpc.run_samples import keep_whole_set
from lfpc.samples import Sample
from lfpc.storage.runs import Kind, RunFolder
from lfpc.training.config import TrainConfig
from lfpc.training.draw import (
    Openable,
    extra_prompts,
    first_view_tokens,
    prompts_of_step,
    training_samples,
    validation_samples,
)
from lfpc.training.fitting import pick_device
from lfpc.training.groups import Group, places_to_log
from lfpc.training.lengths import check_lengths
from lfpc.training.resume import check_steps, keep_init_files, run_inputs
from lfpc.training.sampler import check_sampler
from lfpc.training.state import (
    best_checkpoint,
    check_engine,
    checkpoint_folder,
    remove_leftovers,
    save_state,
    save_weights,
    saved_steps,
    settings_of_run,
)
from lfpc.training.statistics import (
    Numbers,
    alarms,
    check_progress,
    is_best,
    new_alarms,
)
from lfpc.training.trackers import Tracker, TrackerName, opened
from lfpc.training.trainer import Reward, Trainer

if TYPE_CHECKING:
    from lfpc.evaluation.judge import Judge

log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    *,
    progress: bool = True,
    reward: Reward | None = None,
    judge: "Judge | None" = None,
    trackers: Sequence[TrackerName] = (),
    stop_after_s: float = math.inf,
) -> Path:
    """Train, or continue the run that `config.out` holds. Returns the folder of the last step's
    checkpoint.

    SIGTERM (as Terminated) abandons the episodes of a step, or waits for its update, and the
    checkpoint of the last whole step is saved; so it is after a failure while episodes are played,
    such as of the judge. After one in a validation, the resumed run validates first.

    Args:
        config: the run.
        progress: whether to show a progress bar, or lines without a terminal.
        reward: reward function in place of `config.reward`.
        judge: decides free answers that no rule matches; `config.judge` names its model.
        trackers: trackers for metrics and some episodes, besides TensorBoard.
        stop_after_s: seconds after which no step begins that would not end by then; at least one
            is made.
    Raises:
        ConfigError, SampleError, PictureError, CheckpointError, RunError: before the first step
            wherever possible.
    """
    ends = time.monotonic() + stop_after_s
    device = pick_device(config)
    check_sampler(config, device)
    samples = training_samples(config.data, config)
    validation = validation_samples(config)
    if warning := check_lengths(first_view_tokens(samples, config), config):
        log.warning("%s", warning)
    check_engine(config.out, "local")
    done = max(saved_steps(config.out), default=0)
    if not done or config.lora is not None:
        check_folder(config.init)
    check_steps(config, done)
    run = RunFolder.open(
        config.out,
        Kind.TRAIN,
        config,
        inputs=run_inputs(config, validation),
        backend=config.sampler,
        device=str(device),
    )
    keep_whole_set(run, samples)
    keep_init_files(config)
    remove_leftovers(config.out, config.keep)
    if done < config.steps or _unvalidated(run.metrics(), config, validation, done):
        with opened(done, config, trackers, run.id) as boards:
            trainer = Trainer(config, device, done, reward, judge)
            run.truncate_metrics(done)
            done = _loop(trainer, run, samples, validation, done, boards, ends, progress=progress)
    return checkpoint_folder(config.out, done)


def _loop(
    trainer: Trainer,
    run: RunFolder,
    samples: list[Sample],
    validation: list[Sample],
    done: int,
    boards: Sequence[Tracker],
    ends: float,
    *,
    progress: bool,
) -> int:
    """Make the steps after `done`, until the last one or the time `ends` of the monotonic clock.
    Returns the number of finished steps, which have a checkpoint.
    """
    config = trainer.config
    settings = settings_of_run(config, samples)
    history = run.metrics()
    training = Openable(samples, trainer.first_view)
    held_out = Openable(validation, trainer.first_view)
    trainer.further = lambda step, start, count: training.further(
        extra_prompts(len(samples), config, step), start, count, trainer.each
    )
    longest = 0.0
    saved = done

    def validate(before: Sequence[Mapping[str, Any]]) -> Numbers:
        numbers = trainer.validate(held_out.all(trainer.each))
        if is_best(numbers, before):
            best = best_checkpoint(config.out)
            save_weights(trainer.model, trainer.tokenizer, best, config, settings)
        return numbers

    def save() -> None:
        nonlocal saved
        if saved < done:
            optimizer = trainer.learner.optimizer
            save_state(trainer.model, trainer.tokenizer, optimizer, config, done, settings)
            saved = done

    if _unvalidated(history, config, validation, done):  # the judge failed
        row = history.pop()
        row |= validate(history)
        row["alarms"] = alarms([*history, row])
        run.truncate_metrics(done - 1)
        run.log_metrics(row)
        history.append(row)
    if progress:
        tqdm.write(f"watch this run: lfpc report --watch {config.out}", file=sys.stderr)
    bar = tqdm(
        total=config.steps,
        initial=done,
        unit="step",
        desc=config.out.name,
        disable=None if progress else True,
        dynamic_ncols=True,
    )
    with bar, held():  # SIGTERM ends the episodes of a step, and waits for everything else
        for step in range(done + 1, config.steps + 1):
            began = time.monotonic()
            places = prompts_of_step(len(samples), config, step)
            chosen = training.at(places, trainer.each)
            training.passed = 0
            try:
                numbers, groups = trainer.step(chosen, step)
            except (Terminated, LfpcError) as error:
                if not trainer.updating:  # weights of the last whole step
                    save()
                if isinstance(error, Terminated):
                    tqdm.write(f"SIGTERM: step {done} of {config.steps} is saved", file=sys.stderr)
                raise
            numbers["broken_pictures"] = training.passed + sum(
                samples[place].id != sample.id for place, sample in zip(places, chosen, strict=True)
            )
            last = step == config.steps
            failed: LfpcError | None = None
            if validation and (step % config.validate_every == 0 or last):
                try:
                    numbers |= validate(history)
                except LfpcError as error:  # such as of the judge; a resumed run validates first
                    failed = error
            row: dict[str, Any] = {**numbers, "alarms": alarms([*history, numbers])}
            for text in new_alarms(row["alarms"], history):
                tqdm.write(f"alarm: {text}", file=sys.stderr)
            _log_episodes(run, config, step, groups)
            run.log_metrics(row)
            history.append(row)
            done = step
            if step % config.save_every == 0 or last or failed:
                save()
            if failed:
                raise failed
            for board in boards:
                board.numbers(numbers, step)
                if step % config.validate_every == 0 or last:
                    board.episode(groups[0].episodes[0], step)
            _show(bar, history, step, config.steps, progress=progress)
            check_progress(history, config)
            longest = max(longest, time.monotonic() - began)
            if time.monotonic() + longest > ends:
                save()
                break
    return done


def _unvalidated(
    history: Sequence[Mapping[str, Any]],
    config: TrainConfig,
    validation: Sequence[Sample],
    done: int,
) -> bool:
    """Whether the last finished step lacks its validation, which failed."""
    due = bool(validation) and (done % config.validate_every == 0 or done == config.steps)
    return due and bool(history) and "validation_reward" not in history[-1]


def _log_episodes(run: RunFolder, config: TrainConfig, step: int, groups: Sequence[Group]) -> None:
    for place, number in places_to_log(groups, config.log_episodes):
        group = groups[place]
        record = record_of(
            group.episodes[number],
            group.terms[number],
            factor=config.chat.factor,
            step=step,
            advantage=group.advantages[number],
        )
        log_record(run, f"{step}/{place}/{number}", record)


def _show(
    bar: Any, history: Sequence[Mapping[str, Any]], step: int, steps: int, *, progress: bool
) -> None:
    numbers = history[-1]
    facts = {
        name: numbers[name]
        for name in ("reward", "accuracy", "tool_rate", "seconds")
        if numbers[name] is not None
    }
    bar.set_postfix({name: f"{value:.2f}" for name, value in facts.items()}, refresh=False)
    bar.update()
    if progress and bar.disable and (step == steps or step % max(1, steps // 20) == 0):
        recent = [row["seconds"] for row in history[-10:] if row.get("seconds")]
        left = (steps - step) * fmean(recent) if recent else 0.0
        time_left = f", {tqdm.format_interval(left)} left" if left >= 1 else ""
        said = " ".join(f"{name} {value:.2f}" for name, value in facts.items())
        tqdm.write(f"step {step}/{steps} {said}{time_left}", file=sys.stderr)
