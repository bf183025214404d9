"""Play every sample once and record every episode. Runs resume; a failed question does not stop the
others.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from lfpc.episode import AsyncPolicy, Episode, Policy
from lfpc.errors import ConfigError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.opened import EpisodeSettings, OpenEvaluation
from lfpc.evaluation.probes import NO_TOOL, PROBES, REPEAT
from lfpc.evaluation.protocol import prompt_hash
from lfpc.evaluation.replay import prefixes, taken_over
from lfpc.metrics.summary import Records
from lfpc.options import fields_of
from lfpc.playing.driver import Item, Played, play_samples
from lfpc.playing.processes import Setup, play_in_processes, processes_for
from lfpc.playing.progress import progress_bar
from lfpc.policies.backends import Backend, Server
from lfpc.policies.config import ModelPolicy, PolicyConfig
from lfpc.policies.identity import model_identity
from lfpc.policies.loading import served_policy
from lfpc.policies.once import asking_once
from lfpc.records import EpisodeRecord, log_record, read_records
from lfpc.rewards import RewardConfig, RewardTerms, episode_reward
from lfpc.run_samples import check_asked, keep_samples
from lfpc.samples import Sample
from lfpc.storage.runs import NO_INPUTS, Inputs, Kind, RunFolder, check_run, is_run, read_run

SHOWN_REWARD = RewardConfig(grounding=1.0)
"""Reward terms in the records of an evaluation, for any model: Stage II's, which has all terms."""
Asked = tuple[int, Sample]
"""The number of an evaluation, among those played together, and one of its samples."""


def evaluate(
    evaluations: Sequence[OpenEvaluation],
    policy: Policy | AsyncPolicy,
    *,
    batch: int = 64,
    progress: bool = True,
    label: str = "evaluate",
    setup: Setup[Asked, EpisodeRecord] | None = None,
    processes: int | None = 1,
) -> list[list[EpisodeRecord]]:
    """The records of each evaluation, in the order of its samples.

    Records are written at once, under the sample's id. A sample whose picture, policy call or look
    fails in one evaluation gets a failed record there, which counts as wrong. The episodes of one
    sample are played together: a policy in this process reads a prompt that they share once, and an
    AsyncPolicy plays them one after another, so that a server finds it in its cache.

    Args:
        evaluations: the questions.
        policy: gives the replies. An AsyncPolicy plays `policy.concurrency` episodes at a time,
            each at its own pace, and `seconds` is the episode's own time. Any other policy plays
            batches turn by turn, and `seconds` is the episode's share of its batch.
        batch: episodes per batch of a policy in this process.
        progress: whether to show a progress bar, or lines without a terminal.
        label: label of the bar.
        setup: makes the same policy and evaluations in another process, for an AsyncPolicy; None:
            this process plays.
        processes: number of processes that `setup` is for; None: as many as the pictures are
            worth.
    Raises:
        RunError: more than its `max_failures` samples failed in one evaluation, or all of them
            (with the last reason), the disk refuses, or a process was killed.
    """
    concurrency = policy.concurrency if isinstance(policy, AsyncPolicy) else None
    together: defaultdict[str, list[Asked]] = defaultdict(list)
    for number, one in enumerate(evaluations):
        for sample in one.todo:
            together[sample.id].append((number, sample))
    todo = list(chain.from_iterable(together.values()))

    def record(some: Sequence[Played[Asked, EpisodeRecord]]) -> None:
        for (number, sample), result, seconds in some:
            evaluations[number].record(sample, result, seconds, concurrency)
        for one in evaluations:
            one.check()
        advance(len(some))

    total = sum(len(one.samples) for one in evaluations)
    with progress_bar(total, total - len(todo), label, unit="question", shown=progress) as advance:
        workers = 1
        if setup is not None and concurrency is not None:
            pictured = [some[0][1] for some in together.values()]
            workers = processes_for(pictured, concurrency) if processes is None else processes
        if setup is not None and concurrency is not None and workers > 1:
            play_in_processes(
                todo,
                setup,
                record,
                processes=workers,
                concurrency=concurrency,
                picture=lambda asked: asked[1].image,
                one_by_one=_sample_id,
            )
        else:
            play_samples(
                todo,
                items_of(evaluations),
                asking_once(policy),
                record,
                batch=batch,
                one_by_one=_sample_id,
            )
    return [one.records for one in evaluations]


def items_of(evaluations: Sequence[EpisodeSettings]) -> Callable[[Asked], Item[EpisodeRecord]]:
    """The items of several evaluations."""
    return lambda asked: evaluations[asked[0]].item(asked[1])


def _sample_id(asked: Asked) -> str:
    return asked[1].id


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


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """An evaluation to make or to resume."""

    samples: Sequence[Sample]
    config: EvaluationConfig
    """Model, budget, probe."""
    out: Path
    """The run folder."""
    own: Records = ()
    """Records with the policy's own crops. With `config.replay` they are replayed, without failed
    questions."""

    @property
    def name(self) -> str:
        """The probe, with its repeat and draw."""
        name = self.out.name
        return name if name.startswith(self.config.probe) else self.config.probe

    @property
    def asked(self) -> Sequence[Sample]:
        """The samples to have a record of."""
        if not self.config.replay:
            return self.samples
        played = {record.sample.id for record in self.own if not record.failed}
        return [sample for sample in self.samples if sample.id in played]

    @property
    def settings(self) -> EpisodeSettings:
        """How its episodes are played."""
        config = self.config
        return EpisodeSettings(
            protocol=config.chat,
            budget=config.budget,
            look=PROBES[config.probe](self.samples, config.crop_rules, config.seed),
            max_turns=1 if config.probe == NO_TOOL else config.max_turns,
            reward=_shown_reward,
            before=prefixes(self.own) if config.replay else {},
            # a repeat with the same random numbers would be no second sample
            draw=1 + config.seed if config.probe == REPEAT else 0,
        )

    def opened(self, run: RunFolder) -> OpenEvaluation:
        """Its questions, with their records in `run`."""
        if self.config.replay:
            there = read_records(run, self.asked)
            for record in taken_over(self.own):
                if record.sample.id not in there:
                    log_record(run, record.sample.id, record)
        settings = fields_of(EpisodeSettings, self.settings)
        return OpenEvaluation(samples=self.asked, run=run, **settings)


def evaluate_probes(
    policy: Policy | AsyncPolicy,
    runs: Sequence[ProbeRun],
    *,
    inputs: Inputs = NO_INPUTS,
    samples_file: Path | None = None,
    backend: str = "",
    progress: bool = True,
    label: str = "",
    processes: int | None = 1,
) -> list[list[EpisodeRecord]]:
    """One record per sample in each of several run folders. Questions with a record there are not
    asked again; the others are played together, see `evaluate`.

    Args:
        policy, progress: see `evaluate`.
        runs: evaluations with the sampling of `policy`.
        inputs: see `evaluation_inputs`.
        samples_file: `samples.jsonl` that several evaluations share; None: one inside each folder.
        backend: name of the backend, for `environment.json`.
        label: label of the progress bar, before the probes, their repeats and draws.
        processes: number of processes that ask a server; None: as many as the pictures are worth.
    Raises:
        ConfigError: the probe no-tool as a replay, or of a policy that always has the tool.
    """
    by_tool: defaultdict[bool, list[ProbeRun]] = defaultdict(list)
    for one in runs:
        by_tool[one.config.probe != NO_TOOL].append(one)
    policies = {
        tool: policy if tool else _without_tools(policy, some[0].config)
        for tool, some in by_tool.items()
    }
    server = policy.backend if isinstance(policy, ModelPolicy) else None
    opened: dict[Path, OpenEvaluation] = {}
    with ExitStack() as stack:
        for one in runs:
            run = open_evaluation(
                one.out,
                one.config,
                one.asked,
                inputs=inputs,
                samples_file=samples_file,
                backend=backend,
            )
            opened[one.out] = one.opened(stack.enter_context(run))
        for tool, some in by_tool.items():  # the prompt without it is another one
            with getattr(policies[tool], "cached_views", nullcontext)():
                evaluate(
                    [opened[one.out] for one in some],
                    policies[tool],
                    progress=progress,
                    label=" ".join(filter(None, (label, ", ".join(one.name for one in some)))),
                    setup=partial(_elsewhere, some, server) if isinstance(server, Server) else None,
                    processes=processes,
                )
    return [opened[one.out].records for one in runs]


def evaluate_probe(
    policy: Policy | AsyncPolicy,
    samples: Sequence[Sample],
    config: EvaluationConfig,
    out: Path,
    *,
    progress: bool = True,
) -> list[EpisodeRecord]:
    """One record per sample under one probe; see `ProbeRun` and `evaluate_probes`."""
    return evaluate_probes(policy, [ProbeRun(samples, config, out)], progress=progress)[0]


def _shown_reward(played: Episode) -> RewardTerms:
    return episode_reward(played, SHOWN_REWARD)


def _elsewhere(
    runs: Sequence[ProbeRun], server: Server, players: int
) -> tuple[Callable[[Asked], Item[EpisodeRecord]], AsyncPolicy]:
    """The items of `runs`, all with the tool or all without it, and the policy of a process that
    asks `players` questions at a time.
    """
    config = runs[0].config
    tools = config.probe != NO_TOOL
    policy = served_policy(config, replace(server, concurrency=players), tools=tools)
    return items_of([one.settings for one in runs]), policy


def _without_tools(policy: Policy | AsyncPolicy, config: EvaluationConfig) -> ModelPolicy:
    if not isinstance(policy, ModelPolicy):
        raise ConfigError(
            f"the probe {NO_TOOL!r} needs a policy with the method without_tools, which "
            f"{type(policy).__name__} does not have; leave the probe out"
        )
    other = policy.without_tools()
    other.reseed(config.sampling_seed)  # a repeat's seed is no part of the policy's configuration
    return other
