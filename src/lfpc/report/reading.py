"""Run folders of every kind, read for a report: the demo's, a training run's, what `lfpc eval`
wrote.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lfpc.errors import RunError, SampleError
from lfpc.evaluate.recorded import OWN, evaluations, probed_runs
from lfpc.evaluate.results import Setting, budget_histogram
from lfpc.metrics.episodes import Row
from lfpc.report.evidence import TRAINING, DataFacts, Evidence, Origin, merged
from lfpc.samples import SAMPLES_FILE, read_samples
from lfpc.storage.runs import CONFIG_FILE, ENVIRONMENT_FILE, EPISODES_FILE, METRICS_FILE, RunFolder

SECONDS_FILE = "seconds.json"


def read_runs(folders: Sequence[Path]) -> Evidence:
    """What the run folders hold; of several runs the arms carry the run's name.

    Raises:
        RunError: a folder is no run, or a file in it cannot be read.
    """
    names = _names(folders)
    parts = [read_run(folder) for folder in folders]
    if len(parts) == 1:
        return parts[0] if all(arm for arm, *_ in parts[0].origins) else parts[0].renamed(names[0])
    return replace(
        merged([part.renamed(name) for part, name in zip(parts, names, strict=True)]), runs=names
    )


def read_run(folder: Path) -> Evidence:
    """What one run folder holds. The arm of a run without arms is "".

    Raises:
        RunError: it is no run, or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise RunError(
            f"{folder}: no such folder; name what lfpc demo, lfpc train or lfpc eval wrote"
        )
    if seeds := sorted(path.parent for path in folder.glob("seed*/evaluate")):
        return merged([_demo_seed(seed) for seed in seeds])
    if is_training_run(folder):
        return _training_run(folder, "", 0)
    try:
        return _evaluated(folder)
    except RunError as error:
        if next(folder.rglob(EPISODES_FILE), None) is None:
            raise RunError(
                f"{folder}: no run; name what lfpc demo, lfpc train or lfpc eval wrote"
            ) from error
        raise


def is_training_run(folder: Path) -> bool:
    """Whether a training run began in `folder`."""
    return (folder / METRICS_FILE).is_file() or "prompts_per_step" in _config(folder)


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, or as much of its path as tells it from the others."""
    paths = [folder.resolve() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise RunError(f"the same run is named twice: {', '.join(map(str, folders))}")


def _demo_seed(folder: Path) -> Evidence:
    """One seed's folder of a demo: ARM/ holds a training run, evaluate/ARM/SIZE/PROBE an
    evaluation.
    """
    seed = int(folder.name.removeprefix("seed") or 0)
    parts = [
        _training_run(path.parent, path.parent.name, seed)
        for path in sorted(folder.glob(f"*/{METRICS_FILE}"))
    ]
    parts += [
        _probed(run, run.parent.name, run.name, seed)
        for run in _by_budget(folder.glob("evaluate/*/*"))
    ]
    found = merged(parts)
    return found if seed == 0 else replace(found, curves={}, seconds={})


def _evaluated(folder: Path) -> Evidence:
    runs = probed_runs(folder)
    names = {run: name for name, run in runs.items()}
    return merged(
        [
            _probed(run, "", names[run] if names[run] != "." else _budget_name(run), 0)
            for run in _by_budget(runs.values())
        ]
    )


def _by_budget(runs: Any) -> list[Path]:
    """Probed runs, those of one folder from the small budget to the large one."""
    return sorted(
        runs,
        key=lambda run: (
            str(run.parent),
            _config(run / OWN).get("budget") or 0,
            run.name,
        ),
    )


def _budget_name(run: Path) -> str:
    config = _config(run / OWN) or _config(run)
    return str(config.get("budget") or "chosen")


def _probed(run: Path, arm: str, budget: str, seed: int) -> Evidence:
    """An evaluation with its probes; replayed probes are probes of their own."""
    rows: dict[Setting, list[Row]] = {}
    for replay in (False, True):
        for probe, some in evaluations(run, replay=replay).items():
            if probe != OWN or not replay:
                rows[arm, budget, f"{probe} (replay)" if replay else probe, seed] = _located(
                    some, run
                )
    origins = {setting: _origin(_folder_of(run, setting[2])) for setting in rows}
    seconds = _json(run / SECONDS_FILE)
    return Evidence(
        rows=rows,
        origins=origins,
        seconds={(arm, budget): seconds} if isinstance(seconds, float) else {},
    )


def _folder_of(run: Path, probe: str) -> Path:
    folder = run / probe.replace(" (replay)", "-replay")
    return folder if folder.is_dir() else run


def _training_run(folder: Path, arm: str, seed: int) -> Evidence:
    run = RunFolder(folder)
    origin = _origin(folder)
    episodes = _located(list(run.episodes().values()), folder)
    source = _found(Path(str(origin.config.get("data", ""))), folder)
    setting = (arm, TRAINING, OWN, seed)
    return Evidence(
        curves={arm: run.metrics()},
        training={(arm, seed): episodes} if episodes else {},
        origins={setting: origin},
        data=_data_facts(source),
    )


def _data_facts(folder: Path) -> dict[str, DataFacts]:
    """Facts of the samples folder, by its name; empty where it is not there any more."""
    try:
        facts = _facts_of(folder, (folder / SAMPLES_FILE).stat().st_mtime_ns)
    except (SampleError, OSError):
        return {}
    return {folder.parent.name if folder.name == "selected" else folder.name: facts}


@lru_cache(maxsize=32)
def _facts_of(folder: Path, written: int) -> DataFacts:
    """Facts of a samples folder as it was `written`; the runs of a demo share theirs."""
    samples = read_samples(folder)
    return DataFacts(
        count=len(samples),
        budgets=budget_histogram([sample.budget for sample in samples]),
        categories=dict(Counter(sample.category or "none" for sample in samples).most_common()),
        areas=[nested[0].area for sample in samples for nested in sample.boxes],
    )


def _origin(folder: Path) -> Origin:
    return Origin(_config(folder), _json(folder / ENVIRONMENT_FILE))


def _located(rows: Sequence[Row], run: Path) -> list[Row]:
    """The rows with their pictures where they are now, if the run was made in another working
    folder.
    """
    moved: dict[str, str] = {}
    for row in rows:
        image = str(row.get("image", ""))
        if image and image not in moved:
            moved[image] = str(_found(Path(image), run))
    return [
        {**row, "image": moved[image]} if (image := str(row.get("image", ""))) in moved else row
        for row in rows
    ]


def _found(path: Path, run: Path) -> Path:
    """`path`, or the same below one of the folders that the run is in."""
    if path.exists() or path.is_absolute():
        return path
    return next(
        (folder / path for folder in run.resolve().parents if (folder / path).exists()), path
    )


def _config(folder: Path) -> dict[str, Any]:
    return RunFolder(folder).config if (folder / CONFIG_FILE).is_file() else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not readable ({error}); is this a run folder?") from error
