"""`results.json` of a folder of evaluations, made from what is on disk: whoever adds rows, it tells
of all of them.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lfpc.errors import RunError
from lfpc.evaluate.summary import RESULTS_FILE, read_results, write_results
from lfpc.metrics.episodes import Row
from lfpc.storage.runs import EPISODES_FILE, RunFolder

Configs = Mapping[str, Mapping[str, Any]]


def stored_evaluations(out: Path) -> dict[str, RunFolder]:
    """Every run folder with episodes at or below `out`, by the name of its task: its path below
    `out`.

    Raises:
        RunError: there is none, or its rows cannot be read.
    """
    folders = [RunFolder(file.parent) for file in sorted(out.rglob(EPISODES_FILE))]
    if not folders:
        raise RunError(f"{out}: no {EPISODES_FILE} below it; name the folder of an evaluation")
    return {_task(folder.path, out, folder.episodes().values()): folder for folder in folders}


def write_stored(
    out: Path, configs: Configs, *, original: Mapping[str, int] | None = None
) -> dict[str, dict[str, Any]]:
    """Score every evaluation at or below `out` by its rows and write `results.json` there.

    Args:
        out: folder of one or several evaluations.
        configs: protocols of tasks, where they are known better than from an earlier `results.json`
            or the run's configuration.
        original: rows of published sets by task; the other tasks keep what an earlier
            `results.json` says.
    Returns:
        The figures of each task.
    Raises:
        RunError: there is no evaluation, or `results.json` is of another kind (the demo's).
    """
    known = read_results(out / RESULTS_FILE)
    stored = stored_evaluations(out)
    return write_results(
        out / RESULTS_FILE,
        {task: list(folder.episodes().values()) for task, folder in stored.items()},
        {
            task: {**stored_config(out, task, folder), **configs.get(task, {})}
            for task, folder in stored.items()
        },
        original={**known.get("original", {}), **(original or {})},
    )


def stored_config(out: Path, task: str, folder: RunFolder) -> dict[str, Any]:
    """The protocol of a task as an earlier `results.json` has it, else the run's settings."""
    known = read_results(out / RESULTS_FILE).get("configs", {}).get(task)
    try:
        return known or {"run": folder.config}
    except RunError:
        return {}


def _task(folder: Path, out: Path, rows: Iterable[Row]) -> str:
    """What an evaluation is called: the task its rows name, or its folder below `out`."""
    named = next((str(row["task"]) for row in rows if row.get("task")), "")
    inner = folder.relative_to(out).as_posix()
    if inner == ".":
        return named or out.resolve().name
    return inner if not named or inner.startswith(named) else f"{named}/{inner}"
