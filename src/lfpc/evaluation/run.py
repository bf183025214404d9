"""Play every sample once and record every episode. Runs resume; a failed question does not stop the
others.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from lfpc.caches import byte_cache
from lfpc.episode import AsyncPolicy, Episode, Game, Policy, episode
from lfpc.errors import ConfigError, RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.probes import NO_TOOL, PROBES, REPEAT
from lfpc.evaluation.replay import Turns, prefixes, replayed, replies_of, taken_over, with_counts
from lfpc.images import View, global_view, open_picture, view_bytes
from lfpc.looks import Look
from lfpc.metrics.summary import Records
from lfpc.playing.driver import Failure, Played, one_game, play_samples
from lfpc.playing.progress import progress_bar
from lfpc.policies.config import ModelPolicy
from lfpc.protocols import ChatProtocol
from lfpc.records import (
    EpisodeRecord,
    failed_record,
    keep_samples,
    log_record,
    read_records,
    record_of,
)
from lfpc.rewards import RewardConfig, RewardFunction, episode_reward
from lfpc.samples import Sample
from lfpc.storage.runs import Kind, RunFolder

SHOWN_REWARD = RewardConfig(grounding=1.0)
"""Reward terms in the records of an evaluation, for any model: Stage II's, which has all terms."""
UNLIMITED = 16_384
"""First-view budget if neither the caller nor the sample has one: Qwen2.5-VL's upper limit, in
visual tokens."""
VIEW_BYTES = 2**28
"""Bytes of cached first views, which questions about one picture share."""


def first_view(sample: Sample, budget: int | None, *, factor: int = 28) -> View:
    """The sample's picture at `budget` visual tokens; None: at the sample's own budget.

    Raises:
        PictureError: the file is not a usable picture.
    """
    return _view(sample.image, budget or sample.budget or UNLIMITED, factor)


@byte_cache(VIEW_BYTES, view_bytes)
def _view(path: Path, budget: int, factor: int) -> View:
    return global_view(open_picture(path), budget, factor=factor)


def evaluate(
    samples: Sequence[Sample],
    policy: Policy | AsyncPolicy,
    *,
    protocol: ChatProtocol,
    budget: int | None,
    look: Look,
    run: RunFolder,
    max_turns: int = 6,
    reward: RewardFunction | None = None,
    batch: int = 64,
    max_failures: int = 20,
    before: Mapping[str, Turns] | None = None,
    draw: int = 0,
    progress: bool = True,
    label: str = "evaluate",
) -> list[EpisodeRecord]:
    """One record per sample, in the order of `samples`.

    Records are written to `run` under the sample's id at once. Samples with a record there are not
    played again, except failed ones. A sample whose picture, policy call or look fails gets a
    failed record, which counts as wrong.

    Args:
        samples: the questions.
        policy: gives the replies. An AsyncPolicy plays `policy.concurrency` episodes at a time,
            each at its own pace, and `seconds` is the episode's own time. Any other policy plays
            batches turn by turn, and `seconds` is the episode's share of its batch.
        protocol: the model family's protocol.
        budget: visual tokens of the first view; None: each sample's own.
        look: what the crop tool shows.
        run: run folder of one model, budget and probe.
        max_turns: turn limit of an episode.
        reward: reward whose terms each record shows; None: none.
        batch: episodes per batch of a policy in this process.
        max_failures: failures of the policy or the look to accept before giving up.
        before: recorded turns by sample id, to replay before the policy replies.
        draw: number of the draw; runs with different ones are sampled independently.
        progress: whether to show a progress bar, or lines without a terminal.
        label: label of the bar.
    Raises:
        RunError: more than `max_failures` samples failed, or all of them (with the last reason), or
            the disk refuses.
    """
    there = read_records(run, samples).values()
    done = {record.sample.id: record for record in there if not record.failed}
    todo = [sample for sample in samples if sample.id not in done]
    before = before or {}
    concurrency = policy.concurrency if isinstance(policy, AsyncPolicy) else None
    failed: list[str] = []
    played = 0

    def start(sample: Sample) -> Game:
        view = first_view(sample, budget, factor=protocol.factor)
        game = episode(sample, view, look=look, protocol=protocol, max_turns=max_turns, draw=draw)
        return replayed(game, replies_of(before.get(sample.id, ())))

    def recorded(sample: Sample, result: Episode | Failure, seconds: float) -> EpisodeRecord:
        if isinstance(result, Failure):
            made = failed_record(sample, result.why, seconds=seconds, concurrency=concurrency)
        else:
            made = record_of(
                result,
                reward and reward(result),
                factor=protocol.factor,
                seconds=seconds,
                budget=budget or sample.budget,
                concurrency=concurrency,
            )
        turns = before.get(sample.id)
        return with_counts(made, turns) if turns else made

    def record(some: Sequence[Played[Episode]]) -> None:
        nonlocal played
        for sample, result, seconds in some:
            done[sample.id] = recorded(sample, result, seconds)
            log_record(run, sample.id, done[sample.id])
            if isinstance(result, Failure) and result.counts:
                failed.append(result.why)
        played += len(some)
        if len(failed) > max_failures or len(failed) == len(samples) > 0:
            raise RunError(
                f"{run.path}: {len(failed)} of {played} questions failed, the last with: "
                f"{failed[-1]}"
            )
        advance(len(some))

    with progress_bar(
        len(samples), len(samples) - len(todo), label, unit="question", shown=progress
    ) as advance:
        play_samples(todo, one_game(start), policy, record, batch=batch)
    return [done[sample.id] for sample in samples]


def open_evaluation(
    out: Path,
    config: EvaluationConfig,
    samples: Sequence[Sample],
    *,
    samples_file: Path | None = None,
    backend: str = "",
) -> RunFolder:
    """The run folder of one evaluation, with its samples."""
    run = RunFolder.open(out, Kind.EVALUATION, config, backend=backend, samples=samples_file)
    keep_samples(run, samples)
    return run


def evaluate_probe(
    policy: Policy | AsyncPolicy,
    samples: Sequence[Sample],
    config: EvaluationConfig,
    out: Path,
    *,
    own: Records = (),
    samples_file: Path | None = None,
    backend: str = "",
    progress: bool = True,
    label: str = "",
) -> list[EpisodeRecord]:
    """One record per sample under one probe, in the run folder `out`. Questions with a record there
    are not asked again.

    With `config.replay`, the records `own` are replayed, without failed questions.

    Args:
        policy, samples, progress: see `evaluate`.
        config: model, budget, probe.
        out: the run folder.
        own: records with the policy's own crops, to replay.
        samples_file: `samples.jsonl` that several evaluations share; None: one inside `out`.
        backend: name of the backend, for `environment.json`.
        label: label of the progress bar, before the probe.
    Raises:
        ConfigError: the probe no-tool as a replay, or of a policy that always has the tool.
    """
    max_turns = config.max_turns
    if config.probe == NO_TOOL:
        policy = _without_tools(policy)
        max_turns = 1
    played = {record.sample.id for record in own if not record.failed}
    asked = [sample for sample in samples if sample.id in played] if config.replay else samples
    run = open_evaluation(out, config, asked, samples_file=samples_file, backend=backend)
    with run, getattr(policy, "cached_views", nullcontext)():
        if config.replay:
            there = read_records(run, asked)
            for record in taken_over(own):
                if record.sample.id not in there:
                    log_record(run, record.sample.id, record)
        return evaluate(
            asked,
            policy,
            protocol=config.chat,
            budget=config.budget,
            look=PROBES[config.probe](samples, config.crop_rules, config.seed),
            run=run,
            max_turns=max_turns,
            before=prefixes(own) if config.replay else {},
            # a repeat with the same random numbers would be no second sample
            draw=1 + config.seed if config.probe == REPEAT else 0,
            reward=lambda played: episode_reward(played, SHOWN_REWARD),
            progress=progress,
            label=" ".join(filter(None, (label, config.probe))),
        )


def _without_tools(policy: Policy | AsyncPolicy) -> Policy | AsyncPolicy:
    if not isinstance(policy, ModelPolicy):
        raise ConfigError(
            f"the probe {NO_TOOL!r} needs a policy with the method without_tools, which "
            f"{type(policy).__name__} does not have; leave the probe out"
        )
    return policy.without_tools()
