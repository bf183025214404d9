"""Model, policy and optimiser of a run on one device, and its step: play, reward, compare within
groups, update.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import torch

from lfpc.episode import Episode, episode, play
from lfpc.looks import original_look
from lfpc.playing.stopping import interruptible
from lfpc.playing.threads import THREADS
from lfpc.policies.bases import weights_folder
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy
from lfpc.rewards import RewardTerms, episode_reward
from lfpc.samples import Sample
from lfpc.training.config import TrainConfig
from lfpc.training.draw import Each, first_views, look_once
from lfpc.training.faults import check_finite, out_of_memory_explained
from lfpc.training.fitting import fitted_to
from lfpc.training.groups import Group, advantages_of, episodes_of, groups_of, terms_of
from lfpc.training.information import gain_over_noise, pay_for_information
from lfpc.training.rollouts import rollouts_of
from lfpc.training.sampler import VllmSampler
from lfpc.training.state import checkpoint_folder, load_model, load_state
from lfpc.training.statistics import (
    Numbers,
    episode_numbers,
    sampling_numbers,
    validation_numbers,
)
from lfpc.training.update import Learner, summed_up

if TYPE_CHECKING:
    from lfpc.evaluation.judge import Judge

Reward = Callable[[Episode], RewardTerms]
SamplingPolicy = TransformersPolicy | VllmSampler
Further = Callable[[int, int, int], list[Sample]]
"""Of the further samples of a step, those from a number on, at most as many as asked for."""


class Trainer:
    """Model, policy and optimiser of a run."""

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        done: int,
        reward: Reward | None = None,
        judge: "Judge | None" = None,
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
            from lfpc.training.judged import judged

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


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
