"""Evaluate a model on several tasks, at several budgets, under several probes: rows, figures,
results.json.

OUT/TASK/BUDGET/PROBE/episodes.jsonl   rows; a samples folder of one's own has no TASK
OUT/TASK/BUDGET/PROBE-repeatN/         the same questions asked again with another sampling seed
OUT/TASK/BUDGET/probes.json            what the questions cost, and what each probe loses
OUT/results.json                       figures of every task, budget and probe, with its protocol
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lfpc.episode import AsyncPolicy, Policy
from lfpc.errors import ConfigError, SampleError
from lfpc.evaluate.compare import probe_results
from lfpc.evaluate.config import EvaluationConfig
from lfpc.evaluate.probes import PROBES, samples_of_probe
from lfpc.evaluate.recorded import OWN, evaluations, repeat_folder
from lfpc.evaluate.rescore import figure_lines
from lfpc.evaluate.run import evaluate_probe
from lfpc.evaluate.stored import write_stored
from lfpc.evaluate.summary import data_block, protocol_block
from lfpc.evaluate.terminal import probe_lines
from lfpc.evaluate.timing import read_timings, time_questions, write_timings
from lfpc.policies.loading import Host, any_policy, backend_of
from lfpc.policies.served import Server
from lfpc.published.benchmarks import read_benchmark
from lfpc.samples import Sample, read_samples
from lfpc.storage.files import write_json
from lfpc.storage.locks import FolderLock

log = logging.getLogger(__name__)
PROBES_FILE = "probes.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Questions under a name."""

    name: str
    """Of the benchmark; empty for a samples folder."""
    samples: Sequence[Sample]
    data: Mapping[str, Any]
    """Where they came from; see `data_block`."""


def samples_task(folder: Path) -> Task:
    """The questions of a samples folder.

    Raises:
        SampleError: it is not one, or an empty one.
    """
    samples = read_samples(folder)
    if not samples:
        raise SampleError(f"{folder}: no samples")
    return Task(name="", samples=samples, data=data_block(samples, source=str(folder), seed=0))


def benchmark_task(name: str, folder: Path, work: Path, *, seed: int = 0) -> Task:
    """The questions of a published benchmark; see `read_benchmark`, whose errors it raises. Rows
    that are skipped are logged.
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


def eval_run(
    tasks: Sequence[Task],
    config: EvaluationConfig,
    out: Path,
    *,
    budgets: Sequence[int | None],
    probes: Sequence[str],
    host: Host = None,
    timed: int = 0,
    repeats: int = 1,
    progress: bool = True,
) -> Iterator[str]:
    """Ask what is not in `out` yet, then write the results; yields lines for a person as they
    become known.

    The policy's own crops are always asked for, as the probes are compared with them. A probe is
    left out where no question has the boxes it needs.

    Args:
        tasks: what to ask.
        config: the settings that all evaluations share; its budget and probe are replaced.
        out: folder for everything.
        budgets: visual tokens of the first view; None: each sample's own, a folder called "chosen".
        probes: names in `PROBES`.
        host: who computes the replies; None: transformers in this process.
        timed: how many questions are asked once more, one at a time, for their seconds; 0: none.
        repeats: how often every question is asked, each time with another sampling seed and in a
            folder of its own.
        progress: whether to show a bar on a terminal, a line now and then elsewhere.
    Raises:
        ConfigError: an unknown probe, fewer than one repeat, or several of replies that are not
            sampled.
        SampleError: a probe that no task has the boxes for.
        RunError: too many questions failed, another process writes in `out`, or the disk refuses.
    """
    if repeats < 1 or (repeats > 1 and config.temperature == 0):
        raise ConfigError(
            f"repeats must be at least 1, and several need a temperature above 0; got "
            f"{repeats} at {config.temperature}"
        )
    settings = [replace(config, probe=probe) for probe in dict.fromkeys([OWN, *probes])]
    asked = {task.name: _asked(task, [one.probe for one in settings]) for task in tasks}
    for one in settings:
        if not any(one.probe in some for some in asked.values()):
            samples_of_probe(tasks[0].samples, one.probe)  # raises: says what is missing
    lock = FolderLock(out)  # results.json tells of every evaluation below it
    policy = any_policy(config, host)
    configs: dict[str, dict[str, Any]] = {}
    original: dict[str, int] = {}
    for task in tasks:
        for budget in budgets:
            name = "chosen" if budget is None else str(budget)
            folder = out / task.name / name
            for one in settings:
                if one.probe not in asked[task.name]:
                    continue
                for number in range(repeats):
                    here = replace(
                        one, budget=budget, sampling_seed=repeat_seed(config, number, host)
                    )
                    if repeats > 1:
                        policy.reseed(here.sampling_seed)
                    inner = folder / repeat_folder(one.probe, number)
                    evaluate_probe(
                        policy,
                        asked[task.name][one.probe],
                        here,
                        inner,
                        extra={**({"task": task.name} if task.name else {}), "size": name},
                        backend=backend_of(host),
                        progress=progress,
                    )
                    key = inner.relative_to(out).as_posix()
                    configs[key] = _protocol(here, task)
                    original[key] = len(task.samples) + task.data["skipped"]
            if timed and not read_timings(folder):
                _time(policy, task, replace(config, budget=budget), folder, timed)
            results = probe_results(evaluations(folder), read_timings(folder))
            write_json(folder / PROBES_FILE, results)
            yield f"{folder}:"
            yield from probe_lines(results)
            yield from (
                f"{one.probe}: left out, as no question has boxes"
                for one in settings
                if one.probe not in asked[task.name]
            )
    figures = write_stored(out, configs, original=original)
    lock.release()
    yield from figure_lines({task: figures[task] for task in configs})


def repeat_seed(config: EvaluationConfig, number: int, host: Host) -> int | None:
    """The sampling seed of a repeat: the configuration's own, then the numbers after it. A server
    without a seed draws anew each time.
    """
    if number == 0 or (config.sampling_seed is None and isinstance(host, Server)):
        return config.sampling_seed
    return (config.sampling_seed or 0) + number


def _asked(task: Task, probes: Sequence[str]) -> dict[str, list[Sample]]:
    """Which questions each probe can be asked about; a probe with none is not there."""
    asked: dict[str, list[Sample]] = {}
    for probe in probes:
        try:
            asked[probe] = samples_of_probe(task.samples, probe)
        except SampleError:
            continue
    return asked


def _protocol(config: EvaluationConfig, task: Task) -> dict[str, Any]:
    return protocol_block(
        model=config.model,
        revision=None,
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
