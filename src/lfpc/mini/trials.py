"""Trials of a study: training runs, and policies with their evaluations, in parallel, resumable.

The demo and the study are lists of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.places import Known
from lfpc.evaluation.run import ProbeRun, evaluate_probes, evaluation_inputs
from lfpc.metrics.summary import Records
from lfpc.mini.folders import BASE_SETTINGS, CROPS
from lfpc.playing.jobs import Job, bar_over_files, run_jobs
from lfpc.policies.loading import load_policy
from lfpc.samples import SAMPLES_FILE, Sample
from lfpc.storage.runs import EPISODES_FILE, METRICS_FILE
from lfpc.training.config import TrainConfig
from lfpc.training.local import train
from lfpc.training.state import checkpoint_folder

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

    def run(
        self, questions: Sequence[Sample], processes: int, *, label: str, progress: bool
    ) -> Known:
        """Train and evaluate what is not on disk, in parallel. Returns the records of each
        evaluation by its folder.
        """
        jobs: list[Job] = []
        files: dict[Path, tuple[int, float]] = {}
        for (arm, seed), run in self.runs.items():
            parent = ("train", self.parents[arm], seed) if arm in self.parents else None
            jobs.append(Job(("train", arm, seed), train_quietly, (run,), after=parent))
            files[run.out / METRICS_FILE] = (run.steps, STEP_COST)
            jobs += [
                self._job(one, questions)
                for one in self.asked
                if one.after == arm and one.seed == seed
            ]
        jobs += [self._job(one, questions) for one in self.asked if not one.after]
        for one in self.asked:
            for budget, probes in one.probes.items():
                place = self.place(one, budget)
                files |= {place / probe / EPISODES_FILE: (len(questions), 1.0) for probe in probes}
        with bar_over_files(files, label, shown=progress) as update:
            results = run_jobs(jobs, processes, update)
        return {
            folder: some
            for one in self.asked
            for folder, some in results["evaluate", one.arm, one.seed].items()
        }

    def _job(self, one: Asked, questions: Sequence[Sample]) -> Job:
        return Job(
            ("evaluate", one.arm, one.seed),
            evaluate_quietly,
            (one, self, questions),
            after=("train", one.after, one.seed) if one.after else None,
        )


def miniature(config: TrainConfig) -> TrainConfig:
    """`config` at the miniature's size: 16 groups of 8 rollouts a step, crops of a few tokens, a
    frozen vision tower.
    """
    return replace(
        config,
        crop=CROPS,
        max_turns=BASE_SETTINGS.max_turns,
        max_new_tokens=BASE_SETTINGS.max_new_tokens,
        prompts_per_step=16,
        warmup=5,
        decay=True,
        freeze_vision=True,
        save_every=10,
    )


def train_quietly(run: TrainConfig) -> None:
    """One training run without a progress bar."""
    train(run, progress=False)


def last_checkpoint(run: TrainConfig) -> Path:
    """The checkpoint of a run's last step."""
    return checkpoint_folder(run.out, run.steps)


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
