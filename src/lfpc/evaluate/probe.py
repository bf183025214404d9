"""Probe a recorded evaluation: the same questions and settings, another thing shown for the
crop.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lfpc.errors import ConfigError, RunError
from lfpc.evaluate.compare import probe_results
from lfpc.evaluate.config import EvaluationConfig
from lfpc.evaluate.probes import PROBES, RANDOM, samples_of_probe
from lfpc.evaluate.recorded import evaluations, own_folder
from lfpc.evaluate.replay import samples_of_rows
from lfpc.evaluate.run import evaluate_probe
from lfpc.evaluate.terminal import probe_lines
from lfpc.evaluate.timing import read_timings
from lfpc.policies.loading import IN_VLLM, Host, any_policy, backend_of
from lfpc.storage.files import write_json
from lfpc.storage.locks import FolderLock
from lfpc.storage.runs import ENVIRONMENT_FILE, read_run


def probe_run(
    run: Path,
    looks: Sequence[str],
    *,
    replay: bool = False,
    draws: int = 1,
    host: Host = None,
    progress: bool = True,
) -> list[str]:
    """Ask the questions of `run` again under every look; rows go into folders of `run`, results
    into probes.json there.

    What is there is not asked again, and looks of earlier calls are in the results too.

    Args:
        run: what `lfpc eval` wrote: its folder, or its folder "own".
        looks: names in `PROBES`.
        replay: whether the recorded replies up to the first crop are given again; see
            `lfpc.evaluate.replay`.
        draws: seeds per look that depends on one; their verdicts are averaged question by question.
        host: who computes the replies; None: transformers in this process.
        progress: whether to show a bar on a terminal, a line now and then elsewhere.
    Returns:
        A table, and what it could show.
    Raises:
        ConfigError: an unknown look, or fewer than one draw.
        RunError: `run` holds no evaluation, another process writes there, or it cannot be written.
        SampleError: a truth look, and no question has boxes.
    """
    if unknown := [look for look in looks if look not in PROBES or look == "own"]:
        raise ConfigError(
            f"unknown look {unknown[0]!r}; known are "
            f"{', '.join(look for look in PROBES if look != 'own')}"
        )
    if draws < 1:
        raise ConfigError(f"draws must be at least 1, got {draws}")
    folder = own_folder(run)
    recorded = read_run(folder)
    config = recorded.config_as(EvaluationConfig)
    own = list(recorded.episodes().values())
    if not own:
        raise RunError(f"{folder} holds no episode yet; give its lfpc eval command again")
    samples = samples_of_rows(own)
    asked = {look: samples_of_probe(samples, look) for look in looks}
    lock = FolderLock(run)
    policy = any_policy(config, host)
    extra = {key: own[0][key] for key in ("task", "size") if key in own[0]}
    for look, some in asked.items():
        for draw in range(draws if look in RANDOM else 1):
            settings = replace(config, probe=look, replay=replay, seed=config.seed + draw)
            name = "-".join([look, *(["replay"] if replay else []), *([str(draw)] if draw else [])])
            evaluate_probe(
                policy,
                some,
                settings,
                run / name,
                own=own,
                extra=extra,
                backend=backend_of(host),
                progress=progress,
            )
    results = probe_results(evaluations(run, replay=replay), read_timings(run))
    write_json(results_file(run, replay=replay), results)
    lock.release()
    return probe_lines(results)


def results_file(run: Path, *, replay: bool) -> Path:
    """Where `probe_run` writes its results."""
    return run / ("probes-replay.json" if replay else "probes.json")


def served_at(run: Path) -> str | None:
    """The address at which the model of `run` was served, or `IN_VLLM`; None: it was a checkpoint,
    or that is not known.

    Raises:
        RunError: `run` holds no evaluation.
    """
    try:
        address = json.loads((own_folder(run) / ENVIRONMENT_FILE).read_text(encoding="utf-8"))[
            "backend"
        ]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return address if isinstance(address, str) and address.startswith(("http", IN_VLLM)) else None
