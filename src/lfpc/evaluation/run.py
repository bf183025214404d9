"""Play every sample once and record every episode. Runs resume; a failed question does not stop the
others.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

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
from lfpc.playing.driver import Failure, Played, one_game, play_samples
from lfpc.playing.progress import progress_bar
from lfpc.policies.backends import Backend
from lfpc.policies.config import ModelPolicy, PolicyConfig
from lfpc.policies.identity import model_identity
from lfpc.policies.once import asking_once
from lfpc.protocols import ChatProtocol
from lfpc.records import (
    EpisodeRecord,
    failed_record,
    log_record,
    read_records,
    record_of,
)
from lfpc.rewards import RewardConfig, RewardFunction, episode_reward
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


def first_view(sample: Sample, budget: int | None, *, factor: int = 28) -> View:
    """The sample's picture at `budget` visual tokens; None: at the sample's own budget.

    Raises:
        PictureError: the file is not a usable picture.
    """
    return _view(sample.image, budget or sample.budget or UNLIMITED, factor)


@byte_cache(VIEW_BYTES, view_bytes)
def _view(path: Path, budget: int, factor: int) -> View:
    return global_view(open_picture(path), budget, factor=factor)


@dataclass(kw_only=True)
class OpenEvaluation:
    """Questions under one probe, whose records go to one run folder. Those with a record there are
    not asked again, except failed ones.
    """

    samples: Sequence[Sample]
    run: RunFolder
    """Run folder of one model, budget and probe."""
    protocol: ChatProtocol
    """The model family's protocol."""
    budget: int | None
    """Visual tokens of the first view; None: each sample's own."""
    look: Look
    """What the crop tool shows."""
    max_turns: int = 6
    """Turn limit of an episode."""
    reward: RewardFunction | None = None
    """Reward whose terms each record shows; None: none."""
    before: Mapping[str, Turns] = field(default_factory=dict[str, Turns])
    """Recorded turns by sample id, to replay before the policy replies."""
    draw: int = 0
    """Number of the draw; runs with different ones are sampled independently."""
    max_failures: int = 20
    """Failures of the policy or the look to accept before giving up."""

    def __post_init__(self) -> None:
        there = read_records(self.run, self.samples).values()
        self._records = {record.sample.id: record for record in there if not record.failed}
        self.todo = [sample for sample in self.samples if sample.id not in self._records]
        self._hashes = sample_hashes(self.todo, self.budget)
        self._failed: list[str] = []
        self._played = 0

    @property
    def records(self) -> list[EpisodeRecord]:
        """The records, in the order of `samples`, once all are played."""
        return [self._records[sample.id] for sample in self.samples]

    def start(self, sample: Sample) -> Game:
        """The episode of a sample, from its first view on."""
        game = episode(
            sample,
            first_view(sample, self.budget, factor=self.protocol.factor),
            look=self.look,
            protocol=self.protocol,
            max_turns=self.max_turns,
            draw=self.draw,
        )
        return replayed(game, replies_of(self.before.get(sample.id, ())))

    def record(
        self, sample: Sample, result: Episode | Failure, seconds: float, concurrency: int | None
    ) -> None:
        """Write the record of a played sample."""
        if isinstance(result, Failure):
            made = failed_record(sample, result.why, seconds=seconds, concurrency=concurrency)
        else:
            made = record_of(
                result,
                self.reward and self.reward(result),
                factor=self.protocol.factor,
                seconds=seconds,
                budget=self.budget or sample.budget,
                concurrency=concurrency,
                asked=self._hashes[sample.id],
            )
        turns = self.before.get(sample.id)
        made = self._records[sample.id] = with_counts(made, turns) if turns else made
        log_record(self.run, sample.id, made)
        if isinstance(result, Failure) and result.counts:
            self._failed.append(result.why)
        self._played += 1

    def check(self) -> None:
        """Check the number of failures.

        Raises:
            RunError: more than `max_failures` samples failed, or all of them.
        """
        failed = len(self._failed)
        if failed > self.max_failures or failed == len(self.samples) > 0:
            raise RunError(
                f"{self.run.path}: {failed} of {self._played} questions failed, the last with: "
                f"{self._failed[-1]}"
            )


def evaluate(
    evaluations: Sequence[OpenEvaluation],
    policy: Policy | AsyncPolicy,
    *,
    batch: int = 64,
    progress: bool = True,
    label: str = "evaluate",
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
    Raises:
        RunError: more than its `max_failures` samples failed in one evaluation, or all of them
            (with the last reason), or the disk refuses.
    """
    concurrency = policy.concurrency if isinstance(policy, AsyncPolicy) else None
    together: defaultdict[str, list[tuple[OpenEvaluation, Sample]]] = defaultdict(list)
    for one in evaluations:
        for sample in one.todo:
            together[sample.id].append((one, sample))
    todo = list(chain.from_iterable(together.values()))

    def record(some: Sequence[Played[tuple[OpenEvaluation, Sample], Episode]]) -> None:
        for (one, sample), result, seconds in some:
            one.record(sample, result, seconds, concurrency)
        for one in evaluations:
            one.check()
        advance(len(some))

    total = sum(len(one.samples) for one in evaluations)
    with progress_bar(total, total - len(todo), label, unit="question", shown=progress) as advance:
        play_samples(
            todo,
            one_game(lambda asked: asked[0].start(asked[1])),
            asking_once(policy),
            record,
            batch=batch,
            one_by_one=lambda asked: asked[1].id,
        )
    return [one.records for one in evaluations]


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

    def opened(self, run: RunFolder) -> OpenEvaluation:
        """Its questions, with their records in `run`."""
        config = self.config
        if config.replay:
            there = read_records(run, self.asked)
            for record in taken_over(self.own):
                if record.sample.id not in there:
                    log_record(run, record.sample.id, record)
        return OpenEvaluation(
            samples=self.asked,
            run=run,
            protocol=config.chat,
            budget=config.budget,
            look=PROBES[config.probe](self.samples, config.crop_rules, config.seed),
            max_turns=1 if config.probe == NO_TOOL else config.max_turns,
            before=prefixes(self.own) if config.replay else {},
            # a repeat with the same random numbers would be no second sample
            draw=1 + config.seed if config.probe == REPEAT else 0,
            reward=lambda played: episode_reward(played, SHOWN_REWARD),
        )


def evaluate_probes(
    policy: Policy | AsyncPolicy,
    runs: Sequence[ProbeRun],
    *,
    inputs: Inputs = NO_INPUTS,
    samples_file: Path | None = None,
    backend: str = "",
    progress: bool = True,
    label: str = "",
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


def _without_tools(policy: Policy | AsyncPolicy, config: EvaluationConfig) -> ModelPolicy:
    if not isinstance(policy, ModelPolicy):
        raise ConfigError(
            f"the probe {NO_TOOL!r} needs a policy with the method without_tools, which "
            f"{type(policy).__name__} does not have; leave the probe out"
        )
    other = policy.without_tools()
    other.reseed(config.sampling_seed)  # a repeat's seed is no part of the policy's configuration
    return other
