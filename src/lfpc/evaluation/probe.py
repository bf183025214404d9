"""Probe a recorded evaluation: the same samples and configuration under another look."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from lfpc.errors import ConfigError, RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.places import Evaluation, own_evaluation, place_at, place_records
from lfpc.evaluation.probes import (
    OWN,
    PROBES,
    RANDOM,
    check_probe_names,
    name_in_results,
    samples_of_probe,
)
from lfpc.evaluation.result import EvaluationResult
from lfpc.evaluation.results import condition_results
from lfpc.evaluation.run import ProbeRun, check_evaluation, evaluate_probes, evaluation_inputs
from lfpc.evaluation.stored import read_results
from lfpc.evaluation.timing import read_timings
from lfpc.metrics.summary import Records
from lfpc.options import fields_of
from lfpc.playing.processes import check_processes
from lfpc.policies.backends import VLLM_BACKEND, Backend, backend_name
from lfpc.policies.config import ModelPolicy, PolicyConfig
from lfpc.policies.identity import WEIGHTS
from lfpc.policies.loading import any_policy
from lfpc.storage.files import LOCK_FILE, FolderLock, read_json
from lfpc.storage.runs import ENVIRONMENT_FILE


def probe_run(
    place: Path,
    probes: Sequence[str],
    *,
    replay: bool = False,
    draws: int = 1,
    root: Path | None = None,
    policy: ModelPolicy | None = None,
    backend: Backend = None,
    progress: bool = True,
    processes: int | None = 1,
) -> EvaluationResult:
    """Run every probe on a recorded evaluation; their run folders go into `place`.

    Questions with a record are not asked again. The table includes probes of earlier calls.

    Args:
        place: an evaluation, or the folder of one with its probes.
        probes: names in `PROBES`.
        replay: whether the recorded replies up to the first crop are replayed; see
            `lfpc.evaluation.replay`.
        draws: number of seeds of the random probes; verdicts are averaged per question.
        root: folder of `results.json`; None: `place`.
        policy: who replies, configured as it was recorded; None: the recorded model, which
            `backend` computes.
        backend: what computes the replies; None: transformers in this process.
        progress: whether to show a progress bar, or lines without a terminal.
        processes: number of processes that ask a server; None: as many as the pictures are worth.
    Returns:
        The place with its probes: the replayed ones, or those that ran freely.
    Raises:
        ConfigError: an unknown probe, fewer than one draw, or a policy with another configuration
            than the recorded one.
        RunError: `place` holds no evaluation, or it cannot be written.
        SampleError: a truth probe on samples without boxes.
    """
    check_probe_names(probes, [probe for probe in PROBES if probe != OWN])
    if not probes:
        raise ConfigError(f"`probes` is empty; name one or more of {', '.join(PROBES)}")
    if draws < 1:
        raise ConfigError(f"`draws` must be at least 1, got {draws}")
    check_processes(processes, backend if policy is None else policy.backend)
    recorded = own_evaluation(place)
    read_results(root or place)  # damaged ones end a probe before it asks
    runs = _runs(recorded, probes, replay=replay, draws=draws)
    with _locked(place, [recorded.folder, *(place / name for name in runs)]):
        own = recorded.records()
        if not own:
            raise RunError(
                f"{recorded.folder} holds no episode yet; run its lfpc eval command again"
            )
        samples = [record.sample for record in own]
        asked = {probe: samples_of_probe(samples, probe) for probe in probes}
        if policy is not None:
            backend = policy.backend
        inputs = evaluation_inputs(policy.config if policy else recorded.config, backend)
        if policy is not None:
            _check_same_model(recorded, policy.config, by_weights=WEIGHTS in inputs)
        check_evaluation(recorded.folder, recorded.config, samples, inputs)
        for name, config in runs.items():  # before a model is loaded or anything is asked
            check_evaluation(place / name, config, asked[config.probe], inputs)
        policy = any_policy(recorded.config, backend) if policy is None else policy
        known: dict[Path, Records] = {recorded.folder: own}
        some = evaluate_probes(
            policy,
            [
                ProbeRun(asked[config.probe], config, place / name, own if replay else ())
                for name, config in runs.items()
            ],
            inputs=inputs,
            samples_file=recorded.run.samples_file,
            backend=backend_name(backend),
            progress=progress,
            processes=processes,
        )
        known |= dict(zip((place / name for name in runs), some, strict=True))
        found = place_records(place_at(place), replay=replay, known=known)
        by_probe = {name_in_results(name, replay=replay): found[name] for name in found}
        return EvaluationResult(
            path=place,
            root=root or place,
            condition=condition_results(by_probe, read_timings(place), task=recorded.config.task),
            replay=replay,
            known=known,
        )


def _runs(
    recorded: Evaluation, probes: Sequence[str], *, replay: bool, draws: int
) -> dict[str, EvaluationConfig]:
    """Configurations of the probes' evaluations, by the name of their folder."""
    return {
        "-".join([probe, *(["replay"] if replay else []), *([str(draw)] if draw else [])]): replace(
            recorded.config, probe=probe, replay=replay, seed=recorded.config.seed + draw
        )
        for probe in dict.fromkeys(probes)
        for draw in range(draws if probe in RANDOM else 1)
    }


@contextmanager
def _locked(place: Path, folders: Sequence[Path]) -> Iterator[None]:
    """Locks on a place, its evaluations, and the folder of the `lfpc eval` that writes them
    (OUT/BUDGET or OUT/TASK/BUDGET is a place), before anything is asked.

    Raises:
        RunError: another process writes in one of them.
    """
    above = [folder for folder in place.resolve().parents[:2] if (folder / LOCK_FILE).exists()]
    with ExitStack() as stack:
        for folder in (*above, *folders, place):
            stack.enter_context(FolderLock(folder))
        yield


def _check_same_model(recorded: Evaluation, policy: PolicyConfig, *, by_weights: bool) -> None:
    """Check that `policy` is configured as the recorded one.

    Args:
        recorded: the evaluation.
        policy: configuration of the policy to probe.
        by_weights: whether its weights are known, and compared in place of the path.
    Raises:
        ConfigError: it is not.
    """
    for name, now in fields_of(PolicyConfig, policy).items():
        if name == "model" and by_weights and WEIGHTS in recorded.run.inputs:
            continue
        was = getattr(recorded.config, name)
        if was != now:
            raise ConfigError(
                f"{recorded.folder}: `{name}` is {was!r} in the recorded evaluation but {now!r} in "
                f"this policy; probe with the policy that was evaluated"
            )


def recorded_backend(place: Path) -> str | None:
    """The backend of a recorded evaluation: a server's address, `VLLM_BACKEND`, or None for
    transformers (or unknown).

    Raises:
        RunError: `place` holds no evaluation, or the file that names its backend is damaged.
    """
    file = own_evaluation(place).folder / ENVIRONMENT_FILE
    found = read_json(file) if file.exists() else {}
    if not isinstance(found, dict):
        raise RunError(f"{file} is not a JSON object")
    name = found.get("backend")
    return name if isinstance(name, str) and name.startswith(("http", VLLM_BACKEND)) else None
