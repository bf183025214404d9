"""Evaluations on disk, read back for a comparison. Needs no model framework.

An evaluation is a run folder whose rows are of one probe; a probed run is a folder of such folders,
one a probe and draw. What `lfpc eval` writes may hold several probed runs, such as one a budget.
"""

from collections import defaultdict
from pathlib import Path

from lfpc.errors import RunError
from lfpc.evaluate.probes import average_draws
from lfpc.metrics.episodes import Row
from lfpc.storage.runs import CONFIG_FILE, EPISODES_FILE, RunFolder, read_run

OWN = "own"
_REPEAT = "-repeat"


def repeat_folder(first: str, number: int) -> str:
    """What the folder of a repeat is called, beside that of the `first` time the questions were
    asked (number 0).
    """
    return f"{first}{_REPEAT}{number}" if number else first


def first_of(folder: str) -> str:
    """The folder that `folder` is a repeat of; itself where it is none."""
    first, _, number = folder.rpartition(_REPEAT)
    return first if first and number.isdigit() else folder


def probed_runs(folder: Path) -> dict[str, Path]:
    """The runs below `folder` by their relative path; "." is `folder` itself.

    Raises:
        RunError: there are none.
    """
    below = [path.parent.parent for path in folder.glob(f"**/{OWN}/{CONFIG_FILE}")]
    runs = {str(run.relative_to(folder)): run for run in sorted(below)}
    return runs or {".": own_folder(folder)}


def own_folder(run: Path) -> Path:
    """Where the rows under the policy's own crops are: `run` itself, or its folder "own".

    Raises:
        RunError: in neither.
    """
    for folder in (run / OWN, run):
        if (folder / EPISODES_FILE).is_file() and _setting(folder) == (OWN, False):
            return folder
    raise RunError(
        f"{run} holds no evaluation under the policy's own crops; make one with: lfpc eval "
        f"DATA --out {run}"
    )


def evaluations(run: Path, *, replay: bool = False) -> dict[str, list[Row]]:
    """Rows by probe name, "own" first; several draws or repeats of a probe are averaged into one
    row a question.

    Args:
        run: an evaluation, or a folder of them.
        replay: whether the probes are the replayed ones or those that ran freely.
    Raises:
        RunError: there is no evaluation under the policy's own crops, or a file is not readable.
    """
    found: defaultdict[str, list[list[Row]]] = defaultdict(list)
    found[OWN].append(_rows(own_folder(run)))
    for folder in sorted(path.parent for path in run.glob(f"*/{CONFIG_FILE}")):
        probe, was_replayed = _setting(folder)
        if probe == OWN and first_of(folder.name) == OWN != folder.name:
            found[OWN].append(_rows(folder))
        elif probe not in (OWN, None) and was_replayed == replay:
            found[probe].append(_rows(folder))
    return {probe: average_draws(draws) for probe, draws in found.items()}


def _rows(folder: Path) -> list[Row]:
    """Rows of one folder. Their seed says nothing across runs, where questions are paired by name
    alone.
    """
    return [{**row, "seed": None} for row in RunFolder(folder).episodes().values()]


def _setting(folder: Path) -> tuple[str | None, bool]:
    """(probe, whether it was replayed) of the run in `folder`; no probe: it is no evaluation."""
    config = read_run(folder).config
    return config.get("probe"), bool(config.get("replay", False))
