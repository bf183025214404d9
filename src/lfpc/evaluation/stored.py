"""`results.json`, which summarises every evaluation at or below its folder.

{
    "format": 2,
    "questions": n, "seeds": [...],
    "conditions": {ARM: {PLACE: condition_results}},
    "comparisons": {"differences": [...], "ratios": {...}},       between arms
    "results": {EVALUATION: {"accuracy,none": 0.5, ...}},         as lm-evaluation-harness
    "incomplete": {EVALUATION: shortfall},                        only where something is missing
    "configs": {EVALUATION: protocol}, "n-samples": {EVALUATION: {"original", "effective"}},
    "bytes": {EVALUATION: size of its episodes.jsonl}
}
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lfpc.errors import RunError
from lfpc.evaluation.attention import ATTENTION_FILE
from lfpc.evaluation.gain import GAIN_FILE
from lfpc.evaluation.incomplete import shortfall, with_missing
from lfpc.evaluation.places import (
    Evaluation,
    Known,
    Place,
    find_evaluations,
    places_below,
    study_records,
)
from lfpc.evaluation.results import (
    AllRecords,
    ablation_comparisons,
    all_results,
    comparisons,
    ratios,
)
from lfpc.evaluation.search import SEARCH_FILE
from lfpc.evaluation.timing import read_timings
from lfpc.metrics.summary import Records, average_at_k, flat_figures
from lfpc.published.benchmarks import score_task
from lfpc.samples import iter_samples
from lfpc.storage.files import FolderLock, read_json, write_json
from lfpc.storage.runs import EPISODES_FILE

RESULTS_FILE = "results.json"
RESULTS_FORMAT = 2
FURTHER = {"gain": GAIN_FILE, "search": SEARCH_FILE, "attention": ATTENTION_FILE}
"""Files of a place with further results of its condition, by their key."""


def evaluation_name(root: Path, one: Evaluation) -> str:
    """The name of an evaluation in the results of `root`: its task and its path below `root`."""
    path = one.folder.relative_to(root).as_posix()
    task = one.config.task
    if path == ".":
        return task or root.resolve().name
    return path if not task or path.startswith(task) else f"{task}/{path}"


def read_results(root: Path) -> dict[str, Any]:
    """The content of `root`/results.json; empty without the file.

    Raises:
        RunError: the file has another format.
    """
    file = root / RESULTS_FILE
    if not file.exists():
        return {}
    found = read_json(file)
    if not isinstance(found, dict) or found.get("format") != RESULTS_FORMAT:
        raise RunError(
            f"{file} does not have format {RESULTS_FORMAT}; move it, or write to another folder"
        )
    return found


def results_root(folder: Path) -> Path:
    """The folder of the `results.json` that counts an evaluation at or below `folder`, so that a
    study has one: the outermost folder above that does (an absolute path), else `folder`.

    Raises:
        RunError: no evaluation, or an unreadable run folder.
    """
    evaluations = find_evaluations(folder.absolute())
    for root in reversed(folder.absolute().parents):
        try:
            counted = read_results(root).get("bytes", {})
        except RunError:  # a file of another program
            continue
        if any(evaluation_name(root, one) in counted for one in evaluations):
            return root
    return folder


def names_below(folder: Path, root: Path) -> list[str]:
    """The names of the evaluations at or below `folder` in the results of `root`."""
    if root != folder:
        folder = folder.absolute()
    return [evaluation_name(root, one) for one in find_evaluations(folder)]


def fresh_results(root: Path) -> dict[str, Any] | None:
    """The results of `root` if they are up to date with its records, else None."""
    try:
        found = read_results(root)
        sizes = {evaluation_name(root, one): _size(one) for one in find_evaluations(root)}
    except RunError:
        return None
    return found if "incomplete" in found and found["bytes"] == sizes else None


def update_results(
    root: Path,
    *,
    known: Known | None = None,
    protocols: Mapping[Path, Mapping[str, Any]] | None = None,
    original: Mapping[Path, int] | None = None,
    judge: Mapping[str, str] | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """Bring `results.json` of `root` up to date with the evaluations at or below it.

    Results of unchanged evaluations are copied.

    Args:
        root: folder of one or several evaluations.
        known: records already read, by folder.
        protocols: protocol blocks by folder; default: the run's configuration.
        original: number of questions of the published set, by folder; default: as before.
        judge: `Judge.identity`; used with `again`.
        again: whether the records in `known` have new verdicts.
    Returns:
        The new content.
    Raises:
        RunError: no evaluation, another process writes in `root`, or the file has another format.
    """
    evaluations = {evaluation_name(root, one): one for one in find_evaluations(root)}
    with FolderLock(root):
        before = read_results(root)
        content = _counted(
            root,
            evaluations,
            before,
            known=known,
            protocols=protocols,
            original=original,
            judge=judge,
            again=again,
        )
        write_json(root / RESULTS_FILE, content)
    return content


def _counted(
    root: Path,
    evaluations: Mapping[str, Evaluation],
    before: Mapping[str, Any],
    *,
    known: Known | None,
    protocols: Mapping[Path, Mapping[str, Any]] | None,
    original: Mapping[Path, int] | None,
    judge: Mapping[str, str] | None,
    again: bool,
) -> dict[str, Any]:
    """The new content of `results.json`; see `update_results`."""
    sizes = {name: _size(one) for name, one in evaluations.items()}
    same = {
        name
        for name in evaluations
        if not (again and evaluations[name].folder in (known or {}))
        and "incomplete" in before
        and before["bytes"].get(name) == sizes[name]
    }
    records = dict(known or {})
    wanted = _wanted(evaluations)
    figures: dict[str, Any] = {}
    configs: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    incomplete: dict[str, Any] = {}
    for name, one in evaluations.items():
        configs[name] = _config_of(one, before.get("configs", {}).get(name), protocols)
        if again and name not in same:
            configs[name]["judge"] = judge
        if name in same:
            figures[name] = before["results"][name]
            counts[name] = before["n-samples"][name]
            found = before["incomplete"].get(name)
            incomplete[name] = with_missing(found, counts[name]["effective"], wanted[name])
            continue
        if one.folder not in records:
            records[one.folder] = one.records()
        some = records[one.folder]
        incomplete[name] = with_missing(shortfall(some), len(some), wanted[name])
        flat = flat_figures(score_task(one.config.task, some))
        figures[name] = {"alias": name} | {f"{key},none": value for key, value in flat.items()}
        was = before.get("n-samples", {}).get(name, {}).get("original", 0)
        published = (original or {}).get(one.folder, max(was, len(some)))
        counts[name] = {"original": published, "effective": len(some)}
    changed = {one.folder for name, one in evaluations.items() if name not in same}
    for name, runs in _repeats(evaluations, records, same).items():
        averaged = average_at_k(runs)
        figures[name] |= {f"{key},none": value for key, value in averaged.items()}
    return {
        **before,
        "format": RESULTS_FORMAT,
        **_study(before, list(places_below(root).values()), changed, records),
        "results": figures,
        "incomplete": {name: found for name, found in incomplete.items() if found},
        "configs": configs,
        "n-samples": counts,
        "bytes": sizes,
    }


def _wanted(evaluations: Mapping[str, Evaluation]) -> dict[str, int]:
    """The number of questions of each evaluation, from its samples; 0: unknown, or a replay."""
    files = {one.run.samples_file for one in evaluations.values()}
    boxed = {
        file: [bool(sample.boxes) for sample in iter_samples(file)]
        for file in files
        if file.exists()
    }
    found: dict[str, int] = {}
    for name, one in evaluations.items():
        some = [] if one.config.replay else boxed.get(one.run.samples_file, [])
        found[name] = sum(some) if one.config.probe.startswith("truth") else len(some)
    return found


def _study(
    before: Mapping[str, Any], places: Sequence[Place], changed: set[Path], known: Known
) -> dict[str, Any]:
    """Results of every condition, with comparisons between arms."""
    if not any(place.arm for place in places):
        was = before.get("conditions", {}).get("", {})
        kept = {
            place.budget: was[place.budget]
            for place in places
            if place.budget in was and _is_counted(was[place.budget], place, changed)
        }
        new = [place for place in places if place.budget not in kept]
        found = results_of(new, study_records(new, known))
        conditions = kept | found["conditions"].get("", {})
        names = {record.sample.id for some in known.values() for record in some}
        return {
            "questions": max(len(names), before.get("questions", 0)),
            "seeds": [0],
            "conditions": {"": {place.budget: conditions[place.budget] for place in places}},
        }
    found = before.get("conditions", {})
    cells = {(place.arm, place.budget): place for place in reversed(places)}  # the first seed's
    if not changed and all(
        _is_counted(found[arm][budget], place, changed) for (arm, budget), place in cells.items()
    ):
        return {key: before[key] for key in ("questions", "seeds", "conditions", "comparisons")}
    return results_of(places, study_records(places, known))


def _is_counted(found: Mapping[str, Any], place: Place, changed: set[Path]) -> bool:
    """Whether `condition_results` are up to date with the records and timings of a place."""
    if changed.intersection(one.folder for one in place.evaluations()):
        return False
    timed = found["summary"]["timings"] == list(map(asdict, read_timings(place.path)))
    further = stored_further(place.path)
    return timed and all(found.get(name) == further.get(name) for name in FURTHER)


def results_of(places: Sequence[Place], records: AllRecords) -> dict[str, Any]:
    """`all_results` of places, scored by their tasks' rules, with comparisons between arms."""
    timings = {(place.arm, place.budget): read_timings(place.path) for place in reversed(places)}
    tasks = {(place.arm, place.budget): place.own.config.task for place in places}
    found = all_results(records, timings=timings, tasks=tasks)
    for place in reversed(places):  # of several seeds the first's, as the timings
        found["conditions"][place.arm][place.budget] |= stored_further(place.path)
    if not any(place.arm for place in places):
        return found
    further = ablation_comparisons(records)
    return found | {
        "comparisons": {
            "differences": comparisons(records),
            "ablations": comparisons(records, planned=further),
            "ratios": ratios(found["conditions"]),
        }
    }


def stored_further(place: Path) -> dict[str, Any]:
    """The summaries of `lfpc probe --gain`, `--search` and `--attention`, as far as they have
    run.
    """
    files = {name: place / file for name, file in FURTHER.items()}
    return {name: read_json(file) for name, file in files.items() if file.exists()}


def _config_of(
    one: Evaluation,
    before: Mapping[str, Any] | None,
    protocols: Mapping[Path, Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """The protocol of an evaluation: as given, else as before, else the run's configuration. The
    judge that decided stays named until verdicts are decided anew.
    """
    given = (protocols or {}).get(one.folder)
    judge = before.get("judge") if before else None
    return {**(given or before or {"run": one.run.config}), "judge": judge}


def _repeats(
    evaluations: Mapping[str, Evaluation], records: Mapping[Path, Records], same: Iterable[str]
) -> dict[str, list[Records]]:
    """The runs of each evaluation that was repeated with other sampling seeds, by the name of the
    first. Incomplete repeats are left out.
    """
    groups: defaultdict[Any, list[str]] = defaultdict(list)
    for name, one in evaluations.items():
        key = (one.folder.parent, str(replace(one.config, sampling_seed=None)))
        groups[key].append(name)
    unchanged = set(same)
    found: dict[str, list[Records]] = {}
    for names in groups.values():
        if len(names) < 2 or unchanged.issuperset(names):
            continue
        runs = [
            records.get(evaluations[name].folder) or evaluations[name].records() for name in names
        ]
        asked = {record.sample.id for record in runs[0]}
        whole = [run for run in runs if {record.sample.id for record in run} == asked]
        if len(whole) > 1:
            found[names[0]] = whole
    return found


def _size(one: Evaluation) -> int:
    file = one.folder / EPISODES_FILE
    return file.stat().st_size if file.exists() else 0
