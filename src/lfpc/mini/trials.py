"""Trials of a study: training runs, and policies with their evaluations, in parallel, resumable.

The demo and the study are lists of them.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lfpc.errors import RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.places import Known
from lfpc.evaluation.probes import OWN
from lfpc.evaluation.protocol import prompt_hash
from lfpc.evaluation.run import (
    ProbeRun,
    check_evaluation,
    evaluate_probes,
    evaluation_inputs,
)
from lfpc.metrics.summary import Records
from lfpc.mini.arms import Arm, Data
from lfpc.mini.config import ArmsConfig
from lfpc.mini.folders import BASE_SETTINGS, CROPS, source_of, write_split
from lfpc.playing.jobs import Job, bar_over_files, run_jobs
from lfpc.policies.identity import model_identity
from lfpc.policies.loading import load_policy
from lfpc.policies.qwen.checkpoint import load_checkpoint
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.records import read_records
from lfpc.run_samples import sample_hashes
from lfpc.samples import SAMPLES_FILE, Sample, read_samples, write_samples
from lfpc.selection.config import SelectConfig
from lfpc.selection.run import ANSWERS_FILE, ANSWERS_FOLDER, select
from lfpc.storage.runs import (
    EPISODES_FILE,
    METRICS_FILE,
    Kind,
    check_formats,
    check_run,
    is_run,
    read_run,
)
from lfpc.training.config import TrainConfig
from lfpc.training.local import train
from lfpc.training.state import checkpoint_folder

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
SELECTED = "selected"
"""Folder of a split's samples with their budgets, inside the split."""
STEP_COST = 30.0
"""Duration of a training step in questions, for the progress bar."""
Probes = Mapping[str, tuple[str, ...]]
"""Name of a budget -> probes at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A policy and how it is evaluated."""

    arm: str
    seed: int
    checkpoint: Path
    probes: Probes
    after: str = ""
    """Arm whose training it waits for; empty: its checkpoint exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """A study in miniature."""

    out: Path
    budgets: Mapping[str, int]
    """Name of a budget -> visual tokens of the first view."""
    runs: Mapping[tuple[str, int], TrainConfig]
    """Training run by arm and seed."""
    parents: Mapping[str, str]
    """Arm -> the arm whose last checkpoint it starts from."""
    asked: Sequence[Asked]

    def place(self, one: Asked, budget: str) -> Path:
        """Folder of an arm's evaluations at one budget."""
        return self.out / f"seed{one.seed}" / "evaluate" / one.arm / budget

    def evaluation(self, one: Asked, budget: str, probe: str) -> EvaluationConfig:
        """Configuration of one evaluation."""
        return EvaluationConfig(
            model=str(one.checkpoint),
            budget=self.budgets[budget],
            probe=probe,
            arm=one.arm,
            crop=CROPS,
            max_turns=BASE_SETTINGS.max_turns,
            max_new_tokens=BASE_SETTINGS.max_new_tokens,
            seed=one.seed,
        )

    def check(self, split: str) -> None:
        """Check that what `out` holds can be continued, before anything is written.

        Args:
            split: split of the questions.
        Raises:
            RunError: it was trained with other settings, lacks checkpoints that are evaluated, or
                holds answers to the questions of another split.
        """
        check_formats(self.out)
        for run in self.runs.values():
            check_run(run.out, Kind.TRAIN, run, inputs={"prompts": prompt_hash(run.chat)})
        for one in self.asked:
            run = self.runs.get((one.after, one.seed))
            trained = run is not None and checkpoint_folder(run.out, run.steps).is_dir()
            if run and trained and not one.checkpoint.is_dir():
                raise RunError(
                    f"{run.out} was trained without keeping {one.checkpoint.name}, which is "
                    f"evaluated here; use another `out`"
                )
        file = self.out / SAMPLES_FILE
        asked = read_samples(file) if file.is_file() else []
        if other := {one.source for one in asked} - {source_of(split)}:
            raise RunError(
                f"{self.out} holds answers to questions of {min(other)}, not of "
                f"{source_of(split)}; use the same `split`, or another `out`"
            )

    def run(
        self, questions: Sequence[Sample], processes: int, *, label: str, progress: bool
    ) -> Known:
        """Train and evaluate what is not on disk, in parallel. Returns the records of each
        evaluation by its folder.
        """
        stored = {
            (one.arm, one.seed): known
            for one in self.asked
            if (known := self._stored(one, questions)) is not None
        }
        finished = {
            (arm, seed)
            for (arm, seed), run in self.runs.items()
            if checkpoint_folder(run.out, run.steps).is_dir()
            and all((one.arm, seed) in stored for one in self._asked_after(arm, seed))
        }

        def after(arm: str, seed: int) -> tuple[str, str, int] | None:
            return ("train", arm, seed) if arm and (arm, seed) not in finished else None

        def evaluations(some: Sequence[Asked]) -> list[Job]:
            return [
                Job(
                    ("evaluate", one.arm, one.seed),
                    evaluate_quietly,
                    (one, self, questions),
                    after=after(one.after, one.seed),
                )
                for one in some
                if (one.arm, one.seed) not in stored
            ]

        jobs: list[Job] = []
        files: dict[Path, tuple[int, float]] = {}
        for (arm, seed), run in self.runs.items():
            parent = after(self.parents.get(arm, ""), seed)
            if (arm, seed) not in finished:
                jobs.append(Job(("train", arm, seed), train_quietly, (run,), after=parent))
            files[run.out / METRICS_FILE] = (run.steps, STEP_COST)
            jobs += evaluations(self._asked_after(arm, seed))
        jobs += evaluations([one for one in self.asked if not one.after])
        for one in self.asked:
            for budget, probes in one.probes.items():
                place = self.place(one, budget)
                files |= {place / probe / EPISODES_FILE: (len(questions), 1.0) for probe in probes}
        results: Mapping[Hashable, Known] = {}
        if jobs:
            with bar_over_files(files, label, shown=progress) as update:
                results = run_jobs(jobs, processes, update)
        for one in self.asked:
            key = one.arm, one.seed
            stored.setdefault(key, results.get(("evaluate", *key), {}))
        return {folder: some for known in stored.values() for folder, some in known.items()}

    def _asked_after(self, arm: str, seed: int) -> list[Asked]:
        return [one for one in self.asked if (one.after, one.seed) == (arm, seed)]

    def _stored(self, one: Asked, questions: Sequence[Sample]) -> Known | None:
        """The records of a policy by folder, if all are there.

        Raises:
            RunError: they are those of other questions, settings or weights.
        """
        if not one.checkpoint.is_dir():
            return None
        inputs = evaluation_inputs(self.evaluation(one, next(iter(one.probes)), OWN))
        known: dict[Path, Records] = {}
        for budget, probes in one.probes.items():
            for probe in probes:
                folder = self.place(one, budget) / probe
                check_evaluation(folder, self.evaluation(one, budget, probe), questions, inputs)
                if not is_run(folder):
                    return None
                there = read_records(read_run(folder), questions)
                if any(q.id not in there or there[q.id].failed for q in questions):
                    return None
                known[folder] = [there[q.id] for q in questions]
        return known


def select_budgets(
    data: Path,
    counts: Mapping[str, int],
    base: Path,
    config: ArmsConfig,
    *,
    label: str,
    progress: bool,
) -> dict[str, Path]:
    """Write `counts` samples of each split below `data`, and a samples folder of each with budgets
    selected by the base model, in parallel. Returns these folders by split.
    """
    jobs: list[Job] = []
    files: dict[Path, tuple[int, float]] = {}
    for split, count in counts.items():
        chosen = data / split / SELECTED
        samples = write_split(data / split, split, count, more=False)  # all were trained on
        rules = _selection_rules(base, config)
        check_run(chosen, Kind.SELECTION, rules, inputs=model_identity(str(base)))
        if not _is_selected(chosen, samples):
            jobs.append(Job(split, select_quietly, (samples, chosen, rules)))
            answers = count * (len(config.ladder) - 1)  # at most twice as many, few below half
            files[chosen / ANSWERS_FOLDER / ANSWERS_FILE] = (answers, 1.0)
    if jobs:
        with bar_over_files(files, label, shown=progress) as update:
            run_jobs(jobs, config.parallel, update)
    return {split: data / split / SELECTED for split in counts}


def _selection_rules(base: Path, config: ArmsConfig) -> SelectConfig:
    return SelectConfig(
        ladder=config.ladder,
        model=str(base),
        protocol=PROTOCOL.name,
        sampling=Sampling(max_new_tokens=BASE_SETTINGS.max_new_tokens),
    )


def select_quietly(samples: Sequence[Sample], chosen: Path, rules: SelectConfig) -> None:
    """One selection without a progress bar, and its samples with their budgets."""
    model, tokenizer = load_checkpoint(Path(rules.model))
    policy = TransformersPolicy(model, tokenizer, PROTOCOL, sampling=rules.sampling, tools=False)
    found = select(
        samples,
        policy,
        protocol=PROTOCOL,
        config=rules,
        out=chosen,
        inputs=model_identity(rules.model),
        progress=False,
    )
    write_samples(found.samples, chosen)


def _is_selected(chosen: Path, samples: Sequence[Sample]) -> bool:
    """Whether `chosen` has the budgets of these samples."""
    there = read_samples(chosen) if (chosen / SAMPLES_FILE).is_file() else []
    hashes = sample_hashes([replace(sample, budget=None) for sample in there])
    return hashes == sample_hashes(samples)


def arm_run(
    arm: Arm,
    place: Path,
    config: ArmsConfig,
    *,
    base: Path,
    folders: Mapping[Data, Path],
    seed: int,
) -> TrainConfig:
    """The run of an arm in the folder `place`, at the miniature's size: 16 groups of 8 rollouts a
    step, crops of a few tokens, a frozen vision tower. Its parent's run stands beside it.
    """
    return replace(
        arm.config(),
        crop=CROPS,
        max_turns=BASE_SETTINGS.max_turns,
        max_new_tokens=BASE_SETTINGS.max_new_tokens,
        prompts_per_step=16,
        warmup=5,
        decay=True,
        freeze_vision=True,
        save_every=10,
        data=folders[arm.data],
        init=checkpoint_folder(place.parent / arm.parent, config.steps) if arm.parent else base,
        out=place,
        original_budget=config.full,
        steps=config.steps,
        learning_rate=config.learning_rate,
        temperature=config.temperature,
        seed=seed,
    )


def train_quietly(run: TrainConfig) -> None:
    """One training run without a progress bar."""
    train(run, progress=False)


def evaluate_quietly(one: Asked, trials: Trials, questions: Sequence[Sample]) -> Known:
    """Records of one policy at every budget and under every probe, by folder."""
    known: dict[Path, Records] = {}
    first = trials.evaluation(one, next(iter(one.probes)), "own")
    policy = load_policy(first)
    inputs = evaluation_inputs(first)
    for budget, probes in one.probes.items():
        runs = [
            ProbeRun(
                questions,
                trials.evaluation(one, budget, probe),
                trials.place(one, budget) / probe,
            )
            for probe in probes
        ]
        found = evaluate_probes(
            policy, runs, inputs=inputs, samples_file=trials.out / SAMPLES_FILE, progress=False
        )
        known |= {run.out: records for run, records in zip(runs, found, strict=True)}
    return known
