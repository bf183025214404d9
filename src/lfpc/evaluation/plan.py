"""Evaluate a model on several tasks, at several budgets, under several probes.

OUT/TASK/samples.jsonl                 the samples; without TASK for a samples folder
OUT/TASK/BUDGET/PROBE/episodes.jsonl   records
OUT/TASK/BUDGET/PROBE-repeatN/         records with another sampling seed
OUT/results.json                       see `lfpc.evaluation.stored`
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lfpc.episode import AsyncPolicy, Policy
from lfpc.errors import ConfigError, RunError, SampleError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.places import budget_name
from lfpc.evaluation.probes import OWN, PROBES, check_probe_names, samples_of_probe
from lfpc.evaluation.protocol import data_block, protocol_block
from lfpc.evaluation.result import EvaluationResult
from lfpc.evaluation.run import ProbeRun, check_evaluation, evaluate_probes, evaluation_inputs
from lfpc.evaluation.stored import read_results, update_results
from lfpc.evaluation.timing import read_timings, time_questions, write_timings
from lfpc.metrics.summary import Records
from lfpc.playing.processes import check_processes
from lfpc.policies.backends import Backend, Server, backend_name
from lfpc.policies.config import ModelPolicy
from lfpc.policies.identity import WEIGHTS
from lfpc.policies.loading import any_policy
from lfpc.policies.settings import CheckpointSettings
from lfpc.published.benchmarks import read_benchmark
from lfpc.samples import SAMPLES_FILE, Sample, read_samples
from lfpc.storage.files import FolderLock, remove_drafts
from lfpc.storage.runs import Kind, check_formats, is_run, read_run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Samples under a name."""

    name: str
    """Name of the benchmark; empty for a samples folder."""
    samples: Sequence[Sample]
    data: Mapping[str, Any]
    """Source and hash of the samples; see `data_block`."""


@dataclass(frozen=True, slots=True)
class _Job:
    """The evaluations of `eval_run` that are played together: those of one repeat at one budget."""

    task: Task
    place: Path
    sampling_seed: int | None
    runs: Sequence[ProbeRun]


def samples_task(folder: Path) -> Task:
    """A samples folder as a task.

    Raises:
        SampleError: the folder holds no samples, or an invalid one.
    """
    return task_of(read_samples(folder), str(folder))


def task_of(samples: Sequence[Sample], source: str) -> Task:
    """`samples` from `source` as a task.

    Raises:
        SampleError: there are none.
    """
    if not samples:
        raise SampleError(f"{source}: no samples")
    return Task(name="", samples=samples, data=data_block(samples, source=source, seed=0))


def benchmark_task(name: str, folder: Path, work: Path, *, seed: int = 0) -> Task:
    """A published benchmark as a task; see `read_benchmark`, whose errors it raises. Skipped rows
    are logged.
    """
    skipped: list[SampleError] = []
    samples = read_benchmark(name, folder, work, seed, on_bad=skipped.append)
    for error in skipped:
        log.warning("skipped: %s", error)
    return Task(
        name=name,
        samples=samples,
        data=data_block(samples, source=name, seed=seed, skipped=len(skipped)),
    )


def default_budget(tasks: Sequence[Task], settings: CheckpointSettings | None) -> int | None:
    """The first-view budget where none is given: the checkpoint's; None: each sample's own, where
    one has its own, or the model has no settings.
    """
    if settings is None or any(sample.budget for task in tasks for sample in task.samples):
        return None
    return settings.budget


def eval_run(
    tasks: Sequence[Task],
    config: EvaluationConfig,
    out: Path,
    *,
    budgets: Sequence[int | None],
    probes: Sequence[str],
    policy: ModelPolicy | None = None,
    backend: Backend = None,
    timed: int = 0,
    repeats: int = 1,
    progress: bool = True,
    processes: int | None = 1,
) -> list[EvaluationResult]:
    """Run every task, budget and probe that `out` lacks, then write the results. Returns them by
    task and budget.

    The probe "own" always runs, because the others are compared with it. A probe that needs boxes
    is left out of a task without boxes.

    Args:
        tasks: what to ask.
        config: configuration of all evaluations; its budget, probe and task are replaced.
        out: folder for records and results.
        budgets: visual tokens of the first view; None: each sample's own, a folder called "chosen".
        probes: names in `PROBES`.
        policy: who replies, configured as `config` says; None: the model of `config`, which
            `backend` computes.
        backend: what computes the replies; None: transformers in this process.
        timed: number of questions to ask once more, one at a time, to measure seconds; 0: none.
        repeats: times to ask every question, each with another sampling seed and in its own folder.
        progress: whether to show a progress bar, or lines without a terminal.
        processes: number of processes that ask a server; None: as many as the pictures are worth.
    Raises:
        ConfigError: an unknown probe, fewer than one repeat, or several repeats of greedy replies.
        SampleError: a probe that needs boxes, and no task has any.
        RunError: too many questions failed, another process writes in `out` or in an evaluation
            below it, or the disk refuses.
    """
    if repeats < 1 or (repeats > 1 and config.temperature == 0):
        raise ConfigError(
            f"`repeats` must be at least 1, and several need a `temperature` above 0; got "
            f"{repeats} at {config.temperature}"
        )
    if timed < 0:
        raise ConfigError(f"`timed` must be at least 0, got {timed}")
    check_processes(processes, backend if policy is None else policy.backend)
    check_probe_names(probes)
    _check_folder(out)
    for task in tasks:
        _check_set(out / task.name / SAMPLES_FILE, task)
    configs = [replace(config, probe=probe) for probe in dict.fromkeys([OWN, *probes])]
    asked = {task.name: _asked(task, [one.probe for one in configs]) for task in tasks}
    for one in configs:
        if not any(one.probe in some for some in asked.values()):
            samples_of_probe(tasks[0].samples, one.probe)  # raises: says what is missing
    known: dict[Path, Records] = {}
    protocols: dict[Path, Mapping[str, Any]] = {}
    original: dict[Path, int] = {}
    served = backend if policy is None else policy.backend
    inputs = evaluation_inputs(config, served)
    jobs = [
        _Job(
            task,
            place,
            seed,
            [
                ProbeRun(
                    asked[task.name][probe],
                    replace(here, probe=probe, sampling_seed=seed),
                    place / (f"{probe}-repeat{n}" if n else probe),
                )
                for probe in asked[task.name]
            ],
        )
        for task in tasks
        for budget in budgets
        for here in [replace(config, budget=budget, task=task.name)]
        for place in [out / task.name / budget_name(here)]
        for n in range(repeats)
        for seed in [repeat_seed(config, n, served)]
    ]
    runs = [run for job in jobs for run in job.runs]
    for run in runs:  # before a model is loaded or anything is asked
        check_evaluation(run.out, run.config, run.samples, inputs)
    with FolderLock(out):  # results.json tells of every evaluation below it
        for run in runs:
            if run.out.is_dir():
                FolderLock(run.out).release()  # raises if another process holds it
        for folder in {
            out,
            *(job.place for job in jobs),
            *(out / job.task.name for job in jobs),
        }:
            remove_drafts(folder)
        policy = any_policy(config, backend) if policy is None else policy
        for number, job in enumerate(jobs):
            if repeats > 1:
                policy.reseed(job.sampling_seed)
            records = evaluate_probes(
                policy,
                job.runs,
                inputs=inputs,
                samples_file=out / job.task.name / SAMPLES_FILE,
                backend=backend_name(policy.backend),
                progress=progress,
                processes=processes,
                label=f"{job.task.name} {job.place.name}".strip(),
            )
            for run, some in zip(job.runs, records, strict=True):
                known[run.out] = some
                protocols[run.out] = _protocol(run.config, job.task, inputs.get(WEIGHTS))
                original[run.out] = len(job.task.samples) + job.task.data["skipped"]
            last = number + 1 == len(jobs) or jobs[number + 1].place != job.place
            if timed and last and not read_timings(job.place):
                _time(policy, job.task, job.runs[-1].config, job.place, timed)
        results = update_results(out, known=known, protocols=protocols, original=original)
    found: list[EvaluationResult] = []
    for task in tasks:
        left_out = [one.probe for one in configs if one.probe not in asked[task.name]]
        for budget in budgets:
            place = out / task.name / budget_name(replace(config, budget=budget))
            found.append(
                EvaluationResult(
                    path=place,
                    root=out,
                    condition=results["conditions"][""][place.relative_to(out).as_posix()],
                    figures={
                        name: results["results"][name]
                        for name in (folder.relative_to(out).as_posix() for folder in known)
                        if (out / name).parent == place
                    },
                    left_out=tuple(left_out),
                    known=known,
                )
            )
    return found


def _check_folder(out: Path) -> None:
    """Whether evaluations may be written below `out`.

    Raises:
        RunError: `out` is a run of another kind, the folder of a study, or holds a run of another
            format.
    """
    check_formats(out)  # the results could not include another format
    if is_run(out) and (kind := read_run(out).kind) != Kind.EVALUATION:
        raise RunError(f"{out} is a run of the kind {kind}; use another `out`")
    arms = [arm for arm in read_results(out).get("conditions", {}) if arm]
    if arms:
        raise RunError(
            f"{out} is a study of {', '.join(arms)}; use another `out`, such as {out}-eval"
        )


def _check_set(file: Path, task: Task) -> None:
    """Whether `task` has every question of the earlier evaluations in the folder of `file`, so that
    all figures there are about the same questions, or about fewer that a probe can use.

    Raises:
        RunError: it lacks some.
    """
    if not file.exists() or not any(is_run(folder) for folder in file.parent.glob("*/*/")):
        return
    asked = {sample.id for sample in task.samples}
    lacking = [sample.id for sample in read_samples(file) if sample.id not in asked]
    if lacking:
        raise RunError(
            f"{file.parent} holds evaluations of other questions: {len(lacking)} of theirs, such "
            f"as {lacking[0]!r}, are not in {task.data['source']}; give another --out"
        )


def repeat_seed(config: EvaluationConfig, number: int, backend: Backend) -> int | None:
    """The sampling seed of a repeat: the configured one, then the following numbers. None for a
    server without a seed, which draws anew each time.
    """
    if number == 0 or (config.sampling_seed is None and isinstance(backend, Server)):
        return config.sampling_seed
    return (config.sampling_seed or 0) + number


def _asked(task: Task, probes: Sequence[str]) -> dict[str, list[Sample]]:
    """Samples by probe, without the probes that no sample has the boxes for."""
    asked: dict[str, list[Sample]] = {}
    for probe in probes:
        try:
            asked[probe] = samples_of_probe(task.samples, probe)
        except SampleError:
            continue
    return asked


def _protocol(config: EvaluationConfig, task: Task, weights: str | None) -> dict[str, Any]:
    return protocol_block(
        model=config.model,
        revision=weights,
        protocol=config.chat,
        budget=config.budget,
        crop=config.crop_rules,
        max_turns=config.max_turns,
        sampling={
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_new_tokens,
            "seed": config.sampling_seed,
            **config.extra_body,
        },
        coordinates=config.coords,
        data=task.data,
        probe=config.probe,
    )


def _time(
    policy: Policy | AsyncPolicy, task: Task, config: EvaluationConfig, folder: Path, questions: int
) -> None:
    found = time_questions(
        task.samples,
        policy,
        protocol=config.chat,
        budget=config.budget,
        look=PROBES[OWN](task.samples, config.crop_rules, config.seed),
        max_turns=config.max_turns,
        questions=questions,
        warm_up=min(1, len(task.samples) - 1),
    )
    write_timings(folder, [found])
