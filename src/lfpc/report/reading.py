"""Run folders read for a report: training runs, evaluations, and studies that hold both."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from lfpc.errors import RunError, SampleError
from lfpc.evaluation.gain import GAIN_FOLDER, readouts
from lfpc.evaluation.places import Place, find_places, study_records
from lfpc.evaluation.probes import OWN, name_in_results
from lfpc.evaluation.results import Condition
from lfpc.evaluation.stored import fresh_results, results_of
from lfpc.metrics.summary import Records
from lfpc.records import read_records
from lfpc.report.evidence import TRAINING, DataFacts, Evidence, Gains, Origin, merged
from lfpc.samples import SAMPLES_FILE, read_samples
from lfpc.storage.files import read_json
from lfpc.storage.near import missing_folder
from lfpc.storage.runs import CONFIG_FILE, ENVIRONMENT_FILE, Kind, RunFolder, is_run, read_run


def read_runs(folders: Sequence[Path]) -> Evidence:
    """The evidence in the run folders; with several, each arm begins with the run's name.

    Raises:
        RunError: a folder is no run, or a file in it cannot be read.
    """
    if not folders:
        raise RunError("no run given; name what lfpc demo, lfpc train or lfpc eval wrote")
    names = _names(folders)
    parts = [read_evidence(folder) for folder in folders]
    if len(parts) == 1:
        named = all(condition.arm for condition in parts[0].origins)
        return parts[0] if named else parts[0].renamed(names[0])
    renamed = [part.renamed(name) for part, name in zip(parts, names, strict=True)]
    return replace(merged(renamed), runs=names)


def read_evidence(folder: Path) -> Evidence:
    """The evidence in one folder. A run without arms has the arm "".

    Raises:
        RunError: it is no run, or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise RunError(
            f"{missing_folder(folder)} (name what lfpc demo, lfpc train or lfpc eval wrote)"
        )
    files = sorted(folder.rglob(CONFIG_FILE))
    runs = [read_run(file.parent) for file in files if is_run(file.parent)]
    trained = [run for run in runs if run.kind == Kind.TRAIN]
    if any(run.kind == Kind.EVALUATION for run in runs):
        places = list(find_places(folder).values())
        study = any(place.arm for place in places)
        parts = [_training(run, run.path.name) for run in trained] if study else []
        found = merged([_first_seed(parts), _evaluated(folder, places)])
        return replace(found, results=_results(folder, places, found))
    if is_run(folder) and trained:
        return _training(trained[0], "")
    raise RunError(f"{folder}: no run; name what lfpc demo, lfpc train or lfpc eval wrote")


def _results(folder: Path, places: Sequence[Place], found: Evidence) -> dict[str, Any]:
    """The content of `results.json` if it is up to date, else new results."""
    return fresh_results(folder) or results_of(places, found.records)


def is_training_run(folder: Path) -> bool:
    """Whether `folder` is a training run."""
    return is_run(folder) and read_run(folder).kind == Kind.TRAIN


def _names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, or the shortest path that is unique."""
    paths = [folder.resolve() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise RunError(f"the same run is given twice: {', '.join(map(str, folders))}")


def _first_seed(parts: Sequence[Evidence]) -> Evidence:
    """Training runs as one, with the curves of the first seed only."""
    seeds = [min(one.seed for one in part.origins) for part in parts]
    kept = [
        part if seed == min(seeds) else replace(part, curves={})
        for part, seed in zip(parts, seeds, strict=True)
    ]
    return merged(kept)


def _evaluated(folder: Path, places: Sequence[Place]) -> Evidence:
    """The evidence of evaluations; replayed probes have their own names."""
    records = study_records(places)
    origins = {
        Condition(
            place.arm,
            place.budget,
            name_in_results(one.config.probe, replay=one.config.replay),
            place.seed,
        ): _origin(one.run)
        for place in places
        for one in reversed(place.evaluations())
    }
    gains = {
        (place.arm, place.budget, place.seed): some
        for place in places
        if (some := _gains(place, records[Condition(place.arm, place.budget, OWN, place.seed)]))
    }
    return Evidence(records=records, origins=origins, gains=gains)


def _gains(place: Place, records: Records) -> Gains:
    """Gains of the crops of a place; empty if `lfpc probe --gain` has not run."""
    folder = place.path / GAIN_FOLDER
    if not is_run(folder):
        return {}
    logprobs: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for one in readouts(read_run(folder), [record.sample for record in records]).values():
        logprobs[one.sample.id][one.look] = one.logprob
    return {
        name: {look: some[OWN] - value for look, value in some.items() if look != OWN}
        for name, some in logprobs.items()
        if OWN in some
    }


def _training(run: RunFolder, arm: str) -> Evidence:
    seed = int(run.config.get("seed", 0)) if arm else 0
    records = list(read_records(run).values())
    metrics = run.metrics()
    alarms = [row.get("alarms") or [] for row in metrics]
    return Evidence(
        curves={arm: metrics},
        training={(arm, seed): records} if records else {},
        alarms={(arm, seed): alarms} if any(alarms) else {},
        origins={Condition(arm, TRAINING, OWN, seed): _origin(run)},
        data=_data_facts(_found(Path(str(run.config.get("data", ""))), run.path)),
    )


def _data_facts(folder: Path) -> dict[str, DataFacts]:
    """Facts of the samples folder, by its name; empty if it no longer exists."""
    try:
        facts = _facts_of(folder, (folder / SAMPLES_FILE).stat().st_mtime_ns)
    except (SampleError, OSError):
        return {}
    return {folder.parent.name if folder.name == "selected" else folder.name: facts}


@lru_cache(maxsize=32)
def _facts_of(folder: Path, written: int) -> DataFacts:
    """Facts of a samples folder, cached by its time of writing."""
    samples = read_samples(folder)
    return DataFacts(
        count=len(samples),
        budgets=budget_histogram([sample.budget for sample in samples]),
        categories=dict(Counter(sample.category or "none" for sample in samples).most_common()),
        areas=[nested[0].area for sample in samples for nested in sample.boxes],
    )


def budget_histogram(budgets: Sequence[int | None]) -> dict[str, int]:
    """Counts of the selected first-view budgets, smallest first; "none": not selected."""
    counts = Counter(budgets)
    chosen = {str(budget): counts[budget] for budget in sorted(filter(None, counts))}
    return chosen | ({"none": counts[None]} if None in counts else {})


def _origin(run: RunFolder) -> Origin:
    file = run.path / ENVIRONMENT_FILE
    if not file.exists():
        return Origin(run.config, {})
    began = datetime.fromtimestamp(file.stat().st_mtime, UTC).date()
    return Origin(run.config, read_json(file), began.isoformat())


def _found(path: Path, run: Path) -> Path:
    """`path`, or the same below one of the folders that the run is in."""
    if path.exists() or path.is_absolute():
        return path
    return next(
        (folder / path for folder in run.resolve().parents if (folder / path).exists()), path
    )
