"""Evaluations on disk.

An evaluation is a run folder of the kind "evaluation": one model, budget and probe. A place is a
folder with the evaluations of one model and budget: the probe "own" and the others.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lfpc.errors import RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.probes import OWN, average_draws, name_in_results
from lfpc.evaluation.results import Condition
from lfpc.metrics.summary import Records
from lfpc.records import EpisodeRecord, read_records
from lfpc.storage.near import missing_folder
from lfpc.storage.runs import CONFIG_FILE, Kind, RunFolder, is_run, read_run
from lfpc.storage.typed import config_from_plain

Known = Mapping[Path, Records]
"""Records already read, by folder."""
CHOSEN = "chosen"
"""Budget name for each sample's own budget."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation on disk."""

    run: RunFolder
    config: EvaluationConfig

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run.path

    def records(self) -> list[EpisodeRecord]:
        """The records, read from disk.

        Raises:
            RunError: a line is no record.
        """
        return list(read_records(self.run).values())


def find_evaluations(root: Path) -> list[Evaluation]:
    """Every evaluation at or below `root`, sorted by path.

    Raises:
        RunError: no such folder, no evaluation, or an unreadable run folder.
    """
    if not root.is_dir():
        raise RunError(f"{missing_folder(root)} (name one that lfpc eval wrote)")
    files = sorted(root.rglob(CONFIG_FILE))
    runs = [read_run(file.parent) for file in files if is_run(file.parent)]
    found = [as_evaluation(run) for run in runs if run.kind == Kind.EVALUATION]
    if not found:
        raise RunError(f"{root}: no evaluation at or below it; name a folder that lfpc eval wrote")
    return found


def as_evaluation(run: RunFolder) -> Evaluation:
    """The evaluation in a run folder of that kind."""
    where = str(run.path / CONFIG_FILE)
    return Evaluation(run, config_from_plain(EvaluationConfig, run.config, where))


def own_evaluation(place: Path) -> Evaluation:
    """The "own" evaluation of a place: `place` itself, or its folder "own".

    Raises:
        RunError: neither is one.
    """
    for folder in (place / OWN, place):
        if is_run(folder) and (run := read_run(folder)).kind == Kind.EVALUATION:
            found = as_evaluation(run)
            if found.config.probe == OWN and not found.config.replay:
                return found
    raise RunError(
        f"{place} holds no evaluation with the policy's own crops; make one with: "
        f"lfpc eval DATA --out {place}"
    )


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with the evaluations of one model at one budget: "own" and the other probes."""

    path: Path
    own: Evaluation
    arm: str
    """Arm of the study; empty: no study."""
    budget: str
    """Name of the budget: the path below the searched folder, with the task first."""

    @property
    def seed(self) -> int:
        """Seed of the training run in a study, else 0."""
        return self.own.config.seed if self.arm else 0

    def evaluations(self) -> list[Evaluation]:
        """The evaluations, "own" first."""
        folders = [file.parent for file in sorted(self.path.glob(f"*/{CONFIG_FILE}"))]
        others = [folder for folder in folders if folder != self.own.folder and is_run(folder)]
        runs = map(read_run, others)
        return [self.own, *(as_evaluation(run) for run in runs if run.kind == Kind.EVALUATION)]


def find_places(root: Path) -> dict[str, Place]:
    """Places at or below `root` by their relative path ("." is `root` itself), small budgets first.

    Raises:
        RunError: no place.
    """
    places = places_below(root)
    if not places:
        own_evaluation(root)  # raises the error that names what is missing
    return places


def places_below(root: Path) -> dict[str, Place]:
    """As `find_places`, but empty without an "own" evaluation."""
    found = [one for one in find_evaluations(root) if _is_own(one)]
    places = {_folder_of(one, root): one for one in reversed(found)}
    arms = {one.config.arm for one in found}

    def rank(path: Path) -> tuple[bool, str, int, str]:
        config = places[path].config
        ablation = any(config.arm.startswith(f"{arm}-") for arm in arms if arm)
        return ablation, str(path.parent), config.budget or 0, path.name

    ordered = sorted(places, key=rank)
    return {path.relative_to(root).as_posix(): place_at(path, root) for path in ordered}


def place_at(path: Path, root: Path | None = None) -> Place:
    """The place at `path`, with its budget named relative to `root` (None: to itself).

    Raises:
        RunError: no "own" evaluation.
    """
    own = own_evaluation(path)
    below = path.relative_to(root or path).as_posix()
    budget = path.name if own.config.arm else below if below != "." else budget_name(own.config)
    return Place(path, own, own.config.arm, budget)


def _is_own(one: Evaluation) -> bool:
    return one.config.probe == OWN and not one.config.replay


def _folder_of(one: Evaluation, root: Path) -> Path:
    """The place, at or below `root`, of an "own" evaluation."""
    beside = one.folder.parent
    alone = one.folder == root or (one.folder.name != OWN and not is_run(beside / OWN))
    return one.folder if alone else beside


def place_records(
    place: Place, *, replay: bool = False, known: Known | None = None
) -> dict[str, list[EpisodeRecord]]:
    """Records by probe, "own" first; draws or repeats of a probe are averaged into one record per
    question.

    Args:
        place: evaluations of one model and budget.
        replay: whether to read the replayed probes, or the others.
        known: records already read, by folder.
    Raises:
        RunError: a file is not readable.
    """
    known = known or {}
    found: defaultdict[str, list[Records]] = defaultdict(list)
    for one in place.evaluations():
        if one.config.probe == OWN or one.config.replay == replay:
            found[one.config.probe].append(known.get(one.folder) or one.records())
    return {probe: average_draws(draws) for probe, draws in found.items()}


def study_records(
    places: Iterable[Place], known: Known | None = None
) -> dict[Condition, list[EpisodeRecord]]:
    """Records of every place by condition; a replayed probe has its own name."""
    found: dict[Condition, list[EpisodeRecord]] = {}
    for place in places:
        for probe, some in place_records(place, known=known).items():
            found[Condition(place.arm, place.budget, probe, place.seed)] = some
        if any(one.config.replay for one in place.evaluations()):
            for probe, some in place_records(place, replay=True, known=known).items():
                name = name_in_results(probe, replay=True)
                found[Condition(place.arm, place.budget, name, place.seed)] = some
    return found


def budget_name(config: EvaluationConfig) -> str:
    """The name of an evaluation's budget."""
    return CHOSEN if config.budget is None else str(config.budget)
