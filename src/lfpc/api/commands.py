"""The commands of the command line. Runs resume as there: questions with a record are not asked
again.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lfpc.api.checks import check_policy, check_whole, checked
from lfpc.errors import ConfigError, RunError, SampleError
from lfpc.images import CropRules
from lfpc.options import fields_of
from lfpc.policies.backends import VLLM_BACKEND, Backend, Server, VllmEngine
from lfpc.policies.config import ModelPolicy, PolicyConfig
from lfpc.policies.identity import model_identity
from lfpc.policies.sampling import Sampling
from lfpc.policies.settings import CheckpointSettings, read_settings
from lfpc.samples import Sample, distinct_samples, iter_samples, write_samples
from lfpc.storage.files import FolderLock
from lfpc.storage.runs import RunFolder, read_run
from lfpc.storage.typed import plain

if TYPE_CHECKING:
    from lfpc.episode import Episode
    from lfpc.evaluation.result import EvaluationResult
    from lfpc.rewards import RewardTerms
    from lfpc.selection.run import Selection
    from lfpc.training.config import TrainConfig
    from lfpc.training.trackers import TrackerName

Samples = Iterable[Sample] | Path | str
"""Samples, or a samples folder (or one `.jsonl` file)."""


def evaluate(
    policy: ModelPolicy,
    samples: Samples,
    out: Path | str,
    *,
    budget: int | None = None,
    probes: Sequence[str] = ("own", "noise"),
    max_turns: int | None = None,
    crop: CropRules | None = None,
    seed: int = 0,
    repeats: int = 1,
    timed: int = 0,
    processes: int | None = None,
    progress: bool = True,
) -> "EvaluationResult":
    """Evaluate a policy on samples, with its own crops and under probes, as `lfpc eval` does.

    Args:
        policy: result of `load_policy` or `served_policy`.
        samples: the questions.
        out: folder for the run folders (OUT/BUDGET/PROBE) and `results.json`.
        budget: visual tokens of the first view. None: each sample's own; if no sample has one, the
            checkpoint's (lfpc.json), else 16384.
        probes: probes to run: own, noise, truth, truth-wide, truth-each, other, mean, blur, none,
            repeat. "own" always runs; a probe that needs boxes is left out if no sample has any.
        max_turns: turn limit of an episode. None: the checkpoint's, else 6.
        crop: resolution of a crop, in visual tokens. None: the checkpoint's, else the protocol's.
        seed: seed of noise crops and of the pairing with other pictures.
        repeats: times to ask every question, each with another sampling seed; several need a
            temperature above 0.
        timed: number of questions to ask once more, one at a time, to measure seconds.
        processes: worker processes that ask a server, each with its share of `concurrency`, up to
            2 GiB of memory and a core to decode and encode pictures. None: by the size of the
            pictures, at most one per core.
        progress: whether to show a progress bar, or lines without a terminal.
    Raises:
        ConfigError: an unknown probe, a value out of range, or several `processes` for a
            checkpoint.
        SampleError: there are no samples, two share an id, or a row is no sample.
        RunError: `out` holds an evaluation with other settings or is in use, too many questions
            failed, or the disk refuses.
    """
    from lfpc.evaluation.config import EvaluationConfig
    from lfpc.evaluation.plan import default_budget, eval_run, samples_task, task_of
    from lfpc.evaluation.probes import OWN

    check_policy(policy)
    check_whole("budget", budget, 1, optional=True)
    check_whole("max_turns", max_turns, 1, optional=True)
    check_whole("repeats", repeats, 1)
    check_whole("timed", timed, 0)
    check_whole("processes", processes, 1, optional=True)
    if isinstance(samples, Path | str):
        task = samples_task(Path(samples))
    else:
        task = task_of(list(distinct_samples(samples)), "samples given in Python")
    settings = _settings(policy)
    defaults = settings or CheckpointSettings()
    config = checked(
        EvaluationConfig,
        budget=None,
        probe=OWN,
        crop=crop or defaults.crop_for(policy.config.protocol),
        max_turns=max_turns or defaults.max_turns,
        seed=seed,
        **fields_of(PolicyConfig, policy.config),
    )
    policy.reseed(policy.config.sampling_seed)
    (result,) = eval_run(
        [task],
        config,
        Path(out),
        budgets=[budget or default_budget([task], settings)],
        probes=_names(probes),
        policy=policy,
        timed=timed,
        repeats=repeats,
        processes=processes,
        progress=progress,
    )
    return result


def probe(
    run: "EvaluationResult | Path | str",
    probes: Sequence[str] = ("noise", "truth", "other", "none", "repeat"),
    *,
    policy: ModelPolicy | None = None,
    replay: bool = False,
    draws: int = 1,
    processes: int | None = None,
    progress: bool = True,
) -> "EvaluationResult":
    """Ask an evaluation's questions again, with something else for every crop, as `lfpc probe`
    does.

    Args:
        run: an evaluation of one model at one budget.
        probes: probes to run; see `evaluate`.
        policy: the evaluated policy. None: load it, or ask the server of the run.
        replay: whether to replay the recorded replies up to the first crop, and ask the policy only
            for the rest.
        draws: number of seeds for the probes noise and other; verdicts are averaged per question.
        processes, progress: see `evaluate`.
    Returns:
        The evaluation with its replayed probes, or with the others.
    Raises:
        ConfigError: an unknown probe, or a policy with another configuration than the recorded one.
        SampleError: a truth probe on samples without boxes.
        RunError: no evaluation in `run`, or several.
    """
    from lfpc.evaluation.places import find_places
    from lfpc.evaluation.probe import probe_run, recorded_backend
    from lfpc.evaluation.result import EvaluationResult
    from lfpc.evaluation.stored import results_root, update_results

    check_whole("processes", processes, 1, optional=True)
    if isinstance(run, EvaluationResult):
        root = run.root
        place = run.path
    else:
        places = find_places(Path(run))
        root = results_root(Path(run))
        if len(places) > 1:
            raise RunError(f"{run} holds several evaluations: {', '.join(places)}; name one")
        (place,) = (found.path for found in places.values())
    if policy is not None:
        policy.reseed(policy.config.sampling_seed)
    result = probe_run(
        place,
        _names(probes),
        replay=replay,
        draws=draws,
        root=root,
        policy=policy,
        backend=None if policy is not None else _backend_named(recorded_backend(place)),
        processes=processes,
        progress=progress,
    )
    update_results(root)
    return result


def select(
    policy: ModelPolicy,
    samples: Samples,
    out: Path | str,
    *,
    ladder: Sequence[int] = (16384, 4096, 1024, 256),
    ratios: Sequence[float] = (),
    never: Literal["keep", "drop"] = "keep",
    wrong: Literal["keep", "drop"] = "keep",
    every_level: bool = False,
    votes: int = 1,
    answers: Path | str | None = None,
    batch: int = 64,
    processes: int | None = None,
    progress: bool = True,
) -> "Selection":
    """Resolution selection, as `lfpc select` does it: choose each sample's first-view budget, and
    write the samples with their budgets to `out`, a samples folder to train on.

    Args:
        policy: the model to be trained; it answers without the crop tool.
        samples: samples to choose budgets for.
        out: samples folder to write, with the answers, so that a selection can resume.
        ladder: falling budgets in visual tokens; the first is the maximum for the original.
        ratios: levels as falling shares of each original's visual tokens, such as (1, 0.25), in
            place of the ladder's budgets.
        never: whether to keep or drop samples whose answer never changes.
        wrong: whether to keep or drop samples answered wrongly at the original.
        every_level: whether to ask every level, also below the first change.
        votes: sampled answers per question, of which the most frequent counts.
        answers: folder of the answers, which selections may share. None: inside `out`.
        batch: questions per batch of a checkpoint; a server gets its `concurrency` at once.
        processes, progress: see `evaluate`.
    Raises:
        ConfigError: a ladder that does not fall, several votes at temperature 0, or several
            `processes` for a checkpoint.
        SampleError: there are no samples, two share an id, a row is no sample, or rows of an
            earlier selection would be lost, such as boxes drawn there.
        RunError: `out` holds another selection or is in use, or too many samples failed.
    """
    from lfpc.playing.processes import check_processes
    from lfpc.selection import run
    from lfpc.selection.config import SelectConfig

    check_policy(policy)
    check_whole("votes", votes, 1)
    check_whole("batch", batch, 1)
    check_whole("processes", processes, 1, optional=True)
    check_processes(processes, policy.backend)
    if votes > 1 and policy.config.temperature == 0:
        raise ConfigError(
            "`votes` above 1 need sampled answers: give the policy a `temperature` above 0"
        )
    config = checked(
        SelectConfig,
        ladder=ladder,
        ratios=ratios,
        never=never,
        wrong=wrong,
        every_level=every_level,
        votes=votes,
        model=policy.config.model,
        protocol=plain(policy.config.protocol),
        sampling=Sampling(**fields_of(Sampling, policy.config)),
    )
    given = iter_samples(samples) if isinstance(samples, Path | str) else samples
    asked = list(distinct_samples(given))
    if not asked:
        raise SampleError("there are no samples to select budgets for")
    with FolderLock(Path(out)):
        selection = run.select(
            asked,
            policy.without_tools(),
            protocol=policy.config.chat,
            config=config,
            out=Path(out),
            inputs=model_identity(policy.config.model, policy.backend),
            answers=None if answers is None else Path(answers),
            batch=batch,
            processes=processes,
            progress=progress,
        )
        write_samples(selection.samples, out, replace=False)
    return selection


def train(
    config: "TrainConfig | str",
    *,
    data: Path | str,
    init: Path | str,
    out: Path | str,
    validation: Path | str | None = None,
    reward: "Callable[[Episode], RewardTerms] | None" = None,
    trackers: "Sequence[TrackerName]" = (),
    progress: bool = True,
    **settings: Any,
) -> Path:
    """Train with reinforcement learning on one device, as `lfpc train` does, or resume the run in
    `out`. For clusters use the command line (docs/cluster.md).

    Args:
        config: a configuration, or the name of a preset: baseline, stage1, stage2, ...
        data: samples folder to train on.
        init: checkpoint to start from.
        out: run folder.
        validation: samples folder for validation. None: no validation and no best checkpoint.
        reward: reward function in place of the configuration's.
        trackers: trackers besides TensorBoard: "wandb", "trackio".
        progress: see `evaluate`.
        settings: further fields of `TrainConfig`, such as steps=200.
    Returns:
        Folder of the last step's checkpoint.
    Raises:
        ConfigError: an unknown preset or field, or a wrong value.
        SampleError, PictureError: the samples cannot be trained on.
        CheckpointError: `init` does not load.
        RunError: `out` holds a run with another configuration.
    """
    from lfpc.training.config import TrainConfig
    from lfpc.training.presets import preset

    base = preset(config) if isinstance(config, str) else config
    run = checked(
        TrainConfig,
        **fields_of(TrainConfig, base)
        | settings
        | {"data": data, "init": init, "out": out, "validation": validation},
    )
    from lfpc.training import local  # here, because a wrong preset or field needs no torch

    return local.train(run, progress=progress, reward=reward, trackers=trackers)


def open_run(path: Path | str) -> RunFolder:
    """The run in a folder, read-only: `kind`, `config`, `metrics()` (one entry per training step).
    `read_records` gives its records.

    Raises:
        RunError: no run, or one in another format.
    """
    return read_run(Path(path))


def _settings(policy: ModelPolicy) -> CheckpointSettings | None:
    """Settings of the policy's checkpoint; None: unknown."""
    if isinstance(policy.backend, Server):
        return None
    return read_settings(Path(policy.config.model))


def _names(probes: Sequence[str]) -> Sequence[str]:
    """Names of probes, from a list or a single text."""
    return [probes] if isinstance(probes, str) else probes


def _backend_named(name: str | None) -> Backend:
    """The backend with the recorded name."""
    if name is None:
        return None
    return VllmEngine() if name == VLLM_BACKEND else Server(base_url=name)
