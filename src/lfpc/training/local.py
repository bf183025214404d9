"""The training loop on one device: play, reward, compare within groups, update.

A step is a function of (weights, optimiser, seed, step), so a resumed run is bit-identical to an
uninterrupted one.
"""

import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from lfpc.episode import Episode, episode, play
from lfpc.errors import LfpcError
from lfpc.evaluation.judge import Judge
from lfpc.looks import original_look
from lfpc.playing.stopping import Terminated, held, interruptible
from lfpc.playing.threads import THREADS
from lfpc.policies.bases import weights_folder
from lfpc.policies.devices import device_gib, placed, precision
from lfpc.policies.qwen.checkpoint import check_folder
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy
from lfpc.records import log_record, record_of
from lfpc.rewards import RewardTerms, episode_reward
from lfpc.run_samples import keep_whole_set
from lfpc.samples import Sample
from lfpc.storage.runs import Kind, RunFolder
from lfpc.training.config import MICRO_BATCH_TOKENS, TrainConfig
from lfpc.training.draw import (
    Each,
    Openable,
    extra_prompts,
    first_view_tokens,
    first_views,
    look_once,
    prompts_of_step,
    training_samples,
    validation_samples,
)
from lfpc.training.faults import check_finite, out_of_memory_explained
from lfpc.training.groups import (
    Group,
    advantages_of,
    episodes_of,
    groups_of,
    places_to_log,
    terms_of,
)
from lfpc.training.information import gain_over_noise, pay_for_information
from lfpc.training.judged import judged
from lfpc.training.lengths import check_lengths
from lfpc.training.memory import (
    GPU_GIB,
    USABLE,
    advice,
    fitted,
    report,
    sampler_share,
    update_gib,
)
from lfpc.training.resume import check_steps, described_init, keep_init_files, run_inputs
from lfpc.training.rollouts import rollouts_of
from lfpc.training.sampler import VllmSampler, check_sampler
from lfpc.training.state import (
    best_checkpoint,
    check_engine,
    checkpoint_folder,
    load_model,
    load_state,
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
    episode_numbers,
    is_best,
    new_alarms,
    sampling_numbers,
    validation_numbers,
)
from lfpc.training.trackers import Tracker, TrackerName, opened
from lfpc.training.update import Learner, summed_up
from lfpc.training.verl.clusters import Cluster
from lfpc.training.verl.estimate import Preview, assumption, shape_of_run
from lfpc.training.verl.shape import shape_of_checkpoint

log = logging.getLogger(__name__)
Reward = Callable[[Episode], RewardTerms]
SamplingPolicy = TransformersPolicy | VllmSampler
Further = Callable[[int, int, int], list[Sample]]
"""Of the further samples of a step, those from a number on, at most as many as asked for."""


def train(
    config: TrainConfig,
    *,
    progress: bool = True,
    reward: Reward | None = None,
    judge: Judge | None = None,
    trackers: Sequence[TrackerName] = (),
    stop_after_s: float = math.inf,
) -> Path:
    """Train, or continue the run that `config.out` holds. Returns the folder of the last step's
    checkpoint.

    SIGTERM (as Terminated) abandons the episodes of a step, or waits for its update, and the
    checkpoint of the last whole step is saved; so it is after a failure while episodes are played,
    such as of the judge.

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
    if done < config.steps:
        with opened(done, config, trackers, run.id) as boards:
            trainer = Trainer(config, device, done, reward, judge)
            run.truncate_metrics(done)
            done = _loop(trainer, run, samples, validation, done, boards, ends, progress=progress)
    return checkpoint_folder(config.out, done)


class Trainer:
    """Model, policy and optimiser of a run."""

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        done: int,
        reward: Reward | None = None,
        judge: Judge | None = None,
    ) -> None:
        config = fitted_to(config, device)
        model, self.tokenizer = load_model(config, done, device)
        self.config = config
        self.model = model
        self.reward: Reward = reward or (lambda played: episode_reward(played, config.reward))
        self.judge = judge
        self.undecided = 0
        """Answers of this step that the judge did not decide."""
        self.updating = False
        """Whether the step has begun to change the weights."""
        self.generator = torch.Generator(model.device)
        self.policy = self._policy(temperature=config.temperature)
        self.sampler, self.greedy = self._samplers(done)
        self.learner = Learner(self.policy, config)
        self.first_view = first_views(config)
        self.look = original_look(config.crop)
        self.further: Further = lambda step, start, count: []
        count = min(config.threads or THREADS, THREADS)
        self.each: Each = map if count == 1 else ThreadPoolExecutor(count).map
        """Works on pictures, as many at once as torch has threads."""
        if done:
            load_state(model, self.learner.optimizer, config, done)

    def _policy(self, *, temperature: float) -> TransformersPolicy:
        config = self.config
        return TransformersPolicy(
            self.model,
            self.tokenizer,
            config.chat,
            sampling=Sampling(temperature=temperature, max_new_tokens=config.max_new_tokens),
            batch_size=config.sample_batch,
            batch_tokens=config.batch_tokens,
            generator=self.generator,
            share=config.share,
        )

    def _samplers(self, done: int) -> tuple[SamplingPolicy, SamplingPolicy]:
        """The policy's sampler of rollouts, and its greedy one."""
        if self.config.sampler == "transformers":
            return self.policy, self._policy(temperature=0.0)
        init = weights_folder(self.config.init)
        folder = init if init.is_dir() else checkpoint_folder(self.config.out, done)
        sampler = VllmSampler(self.policy, self.config, folder)
        return sampler, sampler.resampled(replace(sampler.sampling, temperature=0.0))

    def step(self, samples: Sequence[Sample], step: int) -> tuple[Numbers, list[Group]]:
        """Play a group per sample, then update. Returns metrics, of all groups that were played,
        and the groups of the update.
        """
        started = time.perf_counter()
        before = self.policy.views.count.pictures
        seed = _seed(self.config.seed, 1, step)
        self.generator.manual_seed(seed)
        self.sampler.reseed(seed)
        self.undecided = 0
        self.updating = False
        with self.policy.cached_views():
            with interruptible(), out_of_memory_explained("playing", self.config):
                groups, played = self.play_step(samples, step)
            self.policy.forget_prompts()
            middle = time.perf_counter()
            self.updating = True
            with out_of_memory_explained("updating", self.config):
                updated = self._update(groups, step)
        ended = time.perf_counter()
        numbers: Numbers = {
            "step": step,
            **episode_numbers(episodes_of(played), terms_of(played)),
            **sampling_numbers(played),
            **updated,
            **({"undecided": float(self.undecided)} if self.judge else {}),
            "vision_passes": self.policy.views.count.pictures - before,
            "seconds_play": middle - started,
            "seconds_update": ended - middle,
            "seconds": ended - started,
        }
        if self.config.dynamic_sampling:
            numbers["extra_questions"] = len(played) - len(samples)
        return numbers, groups

    def play_step(self, samples: Sequence[Sample], step: int) -> tuple[list[Group], list[Group]]:
        """The groups of an update, and all that were played for it. A group without a signal is
        replaced by one of further samples that has one, in up to `dynamic_sampling` rounds.

        Source: DAPO (arXiv 2503.14476), there without a limit.
        """
        groups = self.play_groups(samples)
        played = list(groups)
        for _ in range(self.config.dynamic_sampling):
            flat = [place for place, group in enumerate(groups) if not group.has_signal]
            if not flat:
                break
            more = self.further(step, len(played) - len(samples), len(flat))
            if not more:
                break
            found = self.play_groups(more)
            played += found
            useful = [group for group in found if group.has_signal]
            for place, group in zip(flat, useful, strict=False):
                groups[place] = group
        return groups, played

    def play_groups(self, samples: Sequence[Sample]) -> list[Group]:
        """One group per sample: its episodes, their rewards and advantages."""
        size = self.config.group_size
        episodes = self.play(self.sampler, [sample for sample in samples for _ in range(size)])
        terms = [self.reward(played) for played in episodes]
        if self.config.reward.pay == "information":
            with self.learner.autocast():
                terms = pay_for_information(
                    episodes, terms, self.policy, self.config.reward, seed=self.config.seed
                )
        return groups_of(episodes, terms, size=size, scale=self.config.advantage_scale)

    def play(self, policy: SamplingPolicy, samples: Sequence[Sample]) -> list[Episode]:
        """One episode per sample, judged. Equal boxes are cut once."""
        look = look_once(self.look)
        draws: defaultdict[str, Iterator[int]] = defaultdict(count)
        games = [
            episode(
                s,
                self.first_view(s),
                look=look,
                protocol=self.config.chat,
                max_turns=self.config.max_turns,
                draw=next(draws[s.id]),
            )
            for s in samples
        ]
        with policy.synced() if isinstance(policy, VllmSampler) else self.learner.autocast():
            played = play(games, policy, each=self.each)
        if self.judge is not None:
            played, undecided = judged(played, self.judge)
            self.undecided += undecided
        return played

    def _update(self, groups: Sequence[Group], step: int) -> Numbers:
        rollouts = rollouts_of(
            episodes_of(groups),
            self.policy.encoder,
            max_rollout_tokens=self.config.max_rollout_tokens,
            masks=self.config.masks,
        )
        advantages = advantages_of(groups)
        size = len(rollouts) // self.config.minibatches
        reports = [
            self.learner.update(
                rollouts[start : start + size], advantages[start : start + size], step=step
            )
            for _ in range(self.config.updates_per_batch)
            for start in range(0, len(rollouts), size)
        ]
        check_finite(self.learner.weights, self.config, step)
        report = summed_up(reports, self.config.minibatches)
        return {
            "loss": report.loss,
            "grad_norm": report.grad_norm,
            "ratio_clip_share": report.clip_share,
            "logprob_gap": report.logprob_gap,
            "logprob_gap_mean": report.logprob_gap_mean,
            "trained_rollouts": report.trained_rollouts,
            "overlong": sum(rollout.overlong for rollout in rollouts),
        }

    def validate(self, samples: Sequence[Sample]) -> Numbers:
        """Greedy episodes of held-out samples."""
        greedy = self.greedy
        reader = greedy if isinstance(greedy, TransformersPolicy) else self._policy(temperature=0.0)
        with reader.cached_views():
            episodes = self.play(greedy, samples)
            with self.learner.autocast():
                gain = gain_over_noise(episodes, reader)
        numbers = validation_numbers(episodes, [self.reward(played) for played in episodes])
        return numbers | {"validation_gain": gain}


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

    def save() -> None:
        nonlocal saved
        if saved < done:
            optimizer = trainer.learner.optimizer
            save_state(trainer.model, trainer.tokenizer, optimizer, config, done, settings)
            saved = done

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
            try:
                numbers, groups = trainer.step(chosen, step)
            except (Terminated, LfpcError) as error:
                if not trainer.updating:  # weights of the last whole step
                    save()
                if isinstance(error, Terminated):
                    tqdm.write(f"SIGTERM: step {done} of {config.steps} is saved", file=sys.stderr)
                raise
            numbers["broken_pictures"] = sum(
                samples[place].id != sample.id for place, sample in zip(places, chosen, strict=True)
            )
            last = step == config.steps
            if validation and (step % config.validate_every == 0 or last):
                numbers |= trainer.validate(held_out.all(trainer.each))
                if is_best(numbers, history):
                    best = best_checkpoint(config.out)
                    save_weights(trainer.model, trainer.tokenizer, best, config, settings)
            row: dict[str, Any] = {**numbers, "alarms": alarms([*history, numbers])}
            for text in new_alarms(row["alarms"], history):
                tqdm.write(f"alarm: {text}", file=sys.stderr)
            _log_episodes(run, config, step, groups)
            run.log_metrics(row)
            history.append(row)
            done = step
            if step % config.save_every == 0 or last:
                save()
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


def pick_device(config: TrainConfig) -> torch.device:
    """The device of `config`; also sets the CPU threads."""
    if config.threads:
        torch.set_num_threads(config.threads)
    return placed(config)[0]


def fitted_to(config: TrainConfig, device: torch.device) -> TrainConfig:
    """The run with settings of the update that fit `device`; unchanged on the CPU. A run that does
    not fit is warned about.
    """
    if device.type == "cpu":
        return config
    shape = shape_of_checkpoint(described_init(config))
    gib = config.gpu_memory or device_gib(device) or GPU_GIB
    half = precision(config, device) == torch.bfloat16
    config = fitted(config, shape, gib, half=half)
    if config.sampler == "vllm":
        share = sampler_share(shape, config, gib, half=half)
        config = replace(config, vllm=replace(config.vllm, gpu_share=share))
    tokens = config.micro_batch_tokens or MICRO_BATCH_TOKENS
    needed = update_gib(
        shape, config, tokens, half=half, checkpointing=bool(config.gradient_checkpointing)
    )
    if needed > USABLE * gib:
        log.warning(
            "an update needs about %.0f GiB of %.0f; use %s",
            needed,
            gib,
            ", ".join(advice(config, half=half)),
        )
    return config


def preview(config: TrainConfig, cluster: Cluster) -> Preview:
    """The estimate of a run on this machine's device, or on a GPU of --gpu-memory.

    Args:
        config: the run; without its checkpoint, the model is `cluster.model`.
        cluster: speeds of the GPU.
    """
    device, dtype = placed(config)
    with_gpu = device.type != "cpu" or config.device == "auto"
    gib = config.gpu_memory or device_gib(device) or GPU_GIB
    half = dtype == torch.bfloat16 or (with_gpu and config.dtype == "auto")
    found = report(config, shape_of_run(config, cluster), gib, half=half, cluster=cluster)
    return replace(found, text=assumption(config, cluster) + found.text)


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
