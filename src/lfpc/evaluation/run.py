"""Play every sample once and record every episode. Runs resume; a failed question does not stop the
others.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypedDict

from lfpc.caches import byte_cache
from lfpc.episode import AsyncPolicy, Episode, Game, Policy, episode
from lfpc.errors import ConfigError, RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.probes import NO_TOOL, PROBES, REPEAT
from lfpc.evaluation.protocol import prompt_hash
from lfpc.evaluation.replay import Turns, prefixes, replayed, replies_of, taken_over, with_counts
from lfpc.images import View, global_view, open_picture, view_bytes
from lfpc.looks import Look
from lfpc.metrics.summary import Records
from lfpc.playing.driver import Failure, Item, Played, Question, play_samples
from lfpc.playing.processes import Setup, play_in_processes, processes_for
from lfpc.playing.progress import progress_bar
from lfpc.policies.backends import Backend, Server
from lfpc.policies.config import ModelPolicy, PolicyConfig
from lfpc.policies.identity import model_identity
from lfpc.policies.loading import any_policy
from lfpc.protocols import ChatProtocol
from lfpc.records import (
    EpisodeRecord,
    failed_record,
    log_record,
    read_records,
    record_of,
)
from lfpc.rewards import RewardConfig, RewardFunction, RewardTerms, episode_reward
from lfpc.run_samples import check_asked, keep_samples, sample_hashes
from lfpc.samples import Sample
from lfpc.storage.runs import NO_INPUTS, Inputs, Kind, RunFolder, check_run, is_run, read_run

SHOWN_REWARD = RewardConfig(grounding=1.0)
"""Reward terms in the records of an evaluation, for any model: Stage II's, which has all terms."""
UNLIMITED = 16_384
"""First-view budget if neither the caller nor the sample has one: Qwen2.5-VL's upper limit, in
visual tokens."""
VIEW_BYTES = 2**28
"""Bytes of cached first views, which questions about one picture share."""


class _Settings(TypedDict):
    protocol: ChatProtocol
    budget: int | None
    look: Look
    max_turns: int
    draw: int
    reward: RewardFunction


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
    setup: Setup[EpisodeRecord] | None = None,
    processes: int | None = 1,
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
        setup: makes the same policy and questions in another process, for an AsyncPolicy; None:
            this process plays.
        processes: number of processes that `setup` is for; None: as many as the pictures are
            worth.
    Raises:
        RunError: more than `max_failures` samples failed, or all of them (with the last reason),
            the disk refuses, or a process was killed.
    """
    there = read_records(run, samples).values()
    done = {record.sample.id: record for record in there if not record.failed}
    todo = [sample for sample in samples if sample.id not in done]
    hashes = sample_hashes(todo, budget)
    before = before or {}
    concurrency = policy.concurrency if isinstance(policy, AsyncPolicy) else None
    failed: list[str] = []
    played = 0

    item = recorded_items(
        protocol=protocol,
        budget=budget,
        look=look,
        max_turns=max_turns,
        reward=reward,
        before=before,
        draw=draw,
    )

    def recorded(sample: Sample, result: EpisodeRecord | Failure, seconds: float) -> EpisodeRecord:
        made = (
            failed_record(sample, result.why)
            if isinstance(result, Failure)
            else replace(result, asked=hashes[sample.id])
        )
        made = replace(made, seconds=seconds, concurrency=concurrency)
        turns = before.get(sample.id)
        return with_counts(made, turns) if turns else made

    def record(some: Sequence[Played[EpisodeRecord]]) -> None:
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
        workers = 1
        if setup is not None and concurrency is not None:
            workers = processes_for(todo, concurrency) if processes is None else processes
        if setup is not None and concurrency is not None and workers > 1:
            play_in_processes(todo, setup, record, processes=workers, concurrency=concurrency)
        else:
            play_samples(todo, item, policy, record, batch=batch)
    return [done[sample.id] for sample in samples]


def recorded_items(
    *,
    protocol: ChatProtocol,
    budget: int | None,
    look: Look,
    max_turns: int = 6,
    reward: RewardFunction | None = None,
    before: Mapping[str, Turns],
    draw: int = 0,
) -> Callable[[Sample], Item[EpisodeRecord]]:
    """Items of one episode each, whose results are their records. For the arguments see
    `evaluate`.
    """

    def start(sample: Sample) -> Game:
        view = first_view(sample, budget, factor=protocol.factor)
        game = episode(sample, view, look=look, protocol=protocol, max_turns=max_turns, draw=draw)
        return replayed(game, replies_of(before.get(sample.id, ())))

    def item(sample: Sample) -> Item[EpisodeRecord]:
        (played,) = yield Question(lambda: [start(sample)])
        return record_of(
            played,
            reward and reward(played),
            factor=protocol.factor,
            budget=budget or sample.budget,
        )

    return item


def open_evaluation(
    out: Path,
    config: EvaluationConfig,
    samples: Sequence[Sample],
    *,
    inputs: Inputs = NO_INPUTS,
    samples_file: Path | None = None,
    backend: str = "",
) -> RunFolder:
    """The run folder of one evaluation, with its samples.

    Raises:
        RunError: it holds another evaluation, or answers to other samples.
    """
    run = RunFolder.open(
        out, Kind.EVALUATION, config, inputs=inputs, backend=backend, samples=samples_file
    )
    try:
        check_asked(run, samples, config.budget)
        keep_samples(run, samples)
    except BaseException:
        run.close()
        raise
    return run


def check_evaluation(
    out: Path, config: EvaluationConfig, samples: Sequence[Sample], inputs: Inputs
) -> None:
    """Check that `open_evaluation` would resume what `out` holds, if anything; nothing is written.

    Raises:
        RunError: it would not.
    """
    check_run(out, Kind.EVALUATION, config, inputs=inputs)
    if is_run(out):
        check_asked(read_run(out), samples, config.budget)


def evaluation_inputs(config: PolicyConfig, backend: Backend = None) -> Inputs:
    """What the answers of an evaluation come from, apart from its samples: model and prompts."""
    prompts = prompt_hash(config.chat) + prompt_hash(config.chat, tools=False)
    return {**model_identity(config.model, backend), "prompts": prompts}


def evaluate_probe(
    policy: Policy | AsyncPolicy,
    samples: Sequence[Sample],
    config: EvaluationConfig,
    out: Path,
    *,
    own: Records = (),
    inputs: Inputs = NO_INPUTS,
    samples_file: Path | None = None,
    backend: str = "",
    progress: bool = True,
    label: str = "",
    processes: int | None = 1,
) -> list[EpisodeRecord]:
    """One record per sample under one probe, in the run folder `out`. Questions with a record there
    are not asked again.

    With `config.replay`, the records `own` are replayed, without failed questions.

    Args:
        policy, samples, progress: see `evaluate`.
        config: model, budget, probe.
        out: the run folder.
        own: records with the policy's own crops, to replay.
        inputs: see `evaluation_inputs`.
        samples_file: `samples.jsonl` that several evaluations share; None: one inside `out`.
        backend: name of the backend, for `environment.json`.
        label: label of the progress bar, before the probe, its repeat and draw.
        processes: number of processes that ask a server; None: as many as the pictures are worth.
    Raises:
        ConfigError: the probe no-tool as a replay, or of a policy that always has the tool.
    """
    if config.probe == NO_TOOL:
        policy = _without_tools(policy)
    name = out.name if out.name.startswith(config.probe) else config.probe
    played = {record.sample.id for record in own if not record.failed}
    asked = [sample for sample in samples if sample.id in played] if config.replay else samples
    before = prefixes(own) if config.replay else {}
    run = open_evaluation(
        out, config, asked, inputs=inputs, samples_file=samples_file, backend=backend
    )
    server = policy.backend if isinstance(policy, ModelPolicy) else None
    with run, getattr(policy, "cached_views", nullcontext)():
        if config.replay:
            there = read_records(run, asked)
            for record in taken_over(own):
                if record.sample.id not in there:
                    log_record(run, record.sample.id, record)
        return evaluate(
            asked,
            policy,
            **_settings(config, samples),
            run=run,
            before=before,
            progress=progress,
            label=" ".join(filter(None, (label, name))),
            setup=partial(_elsewhere, config, samples, before, server)
            if isinstance(server, Server)
            else None,
            processes=processes,
        )


def _settings(config: EvaluationConfig, samples: Sequence[Sample]) -> _Settings:
    """The arguments of `evaluate` that a configuration decides."""
    return {
        "protocol": config.chat,
        "budget": config.budget,
        "look": PROBES[config.probe](samples, config.crop_rules, config.seed),
        "max_turns": 1 if config.probe == NO_TOOL else config.max_turns,
        # a repeat with the same random numbers would be no second sample
        "draw": 1 + config.seed if config.probe == REPEAT else 0,
        "reward": _shown_reward,
    }


def _shown_reward(played: Episode) -> RewardTerms:
    return episode_reward(played, SHOWN_REWARD)


def _elsewhere(
    config: EvaluationConfig,
    samples: Sequence[Sample],
    before: Mapping[str, Turns],
    server: Server,
    players: int,
) -> tuple[Callable[[Sample], Item[EpisodeRecord]], AsyncPolicy]:
    """The items and the policy of a process that asks `players` questions at a time."""
    policy = any_policy(config, replace(server, concurrency=players))
    if config.probe == NO_TOOL:
        policy = policy.without_tools()
    assert isinstance(policy, AsyncPolicy)
    return recorded_items(**_settings(config, samples), before=before), policy


def _without_tools(policy: Policy | AsyncPolicy) -> Policy | AsyncPolicy:
    if not isinstance(policy, ModelPolicy):
        raise ConfigError(
            f"the probe {NO_TOOL!r} needs a policy with the method without_tools, which "
            f"{type(policy).__name__} does not have; leave the probe out"
        )
    return policy.without_tools()
