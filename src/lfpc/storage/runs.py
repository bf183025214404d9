"""The run folder: configuration, environment, metrics and episodes of a run.

    config.json        {"kind": "train", "format": 2, "config": {...}, "inputs": {...}, "id": "..."}
    samples.jsonl      the samples of the run; "samples" in config.json names another file
    environment.json   see `environment`
    metrics.jsonl      a line per step
    episodes.jsonl     a line per episode, with a key

"config" is the configuration resolved, "inputs" the content hashes of what the run is computed
from, by name. Both are compared when a run is resumed. Fields marked `Changeable` may differ, and
until a run has a result, everything may. Other modules write the weights.
"""

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import islice
from pathlib import Path
from secrets import token_hex
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from zlib import crc32

from lfpc.errors import RunError
from lfpc.storage.environment import environment
from lfpc.storage.files import FolderLock, read_json, remove_drafts, write_json, write_text
from lfpc.storage.journal import Journal, append_line, cut_torn_line, line_of, read_lines
from lfpc.storage.same_config import check_same_config
from lfpc.storage.typed import changeable_fields, config_from_plain, plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONFIG_FILE = "config.json"
ENVIRONMENT_FILE = "environment.json"
METRICS_FILE = "metrics.jsonl"
EPISODES_FILE = "episodes.jsonl"
SAMPLES_FILE = "samples.jsonl"
FORMAT = 2
"""Format of run folders in this version. Format 1 was the bare configuration."""
RESULTS = {
    "train": (METRICS_FILE, EPISODES_FILE, "checkpoints", "verl"),
    "evaluation": (EPISODES_FILE,),
    "selection": ("selection.json",),
    "answers": ("answers.jsonl",),
    "import": (".",),
    "hashes": (".",),
    "gain": (EPISODES_FILE,),
    "search": (EPISODES_FILE,),
    "attention": (EPISODES_FILE,),
}
"""Files of a run's results, by its kind."""
Inputs = Mapping[str, str]
"""What a run is computed from: name, such as "weights" -> content hash, or a model's name."""
NO_INPUTS: Inputs = MappingProxyType({})
C = TypeVar("C")
log = logging.getLogger(__name__)


class Kind(StrEnum):
    """Kind of a run folder."""

    TRAIN = "train"
    EVALUATION = "evaluation"
    GAIN = "gain"
    """Log-probabilities of the right answers of an evaluation, under several looks."""
    SEARCH = "search"
    """Answers after each tile of a search, or their log-probabilities."""
    ATTENTION = "attention"
    """Answers after the windows of the model's attention."""
    SELECTION = "selection"
    ANSWERS = "answers"
    """Answers of a model, which selections may share."""
    IMPORT = "import"
    HASHES = "hashes"
    """Hashes of pictures, for the search of copies."""


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. Get it with `RunFolder.open` to write, with `read_run` to read; every method
    raises RunError if the disk refuses.
    """

    path: Path
    _lock: FolderLock | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def open(
        cls,
        path: Path,
        kind: Kind,
        config: "DataclassInstance",
        *,
        inputs: Inputs = NO_INPUTS,
        resume: bool = True,
        samples: Path | None = None,
        backend: str = "",
        device: str = "",
    ) -> Self:
        """Create the folder, or resume its run of the same `config` and `inputs`. No other process
        can open it until this one ends or closes it.

        Args:
            path: the folder; parents are created.
            kind: kind of the run.
            config: a frozen dataclass, written resolved, and compared key by key with an existing
                one.
            inputs: what the run is computed from, compared with the existing one's.
            resume: whether to resume an existing run.
            samples: `samples.jsonl` of the run, which runs may share; None: in the folder itself.
            backend: name of the backend, for `environment.json`.
            device: torch device, for `environment.json`.
        Raises:
            RunError: see `check_run`; or the folder is in use or not writable.
        """
        if not (path / CONFIG_FILE).exists():
            _check_no_other_content(path, kind)  # before the lock creates the folder
        run = cls(path, FolderLock(path))
        try:
            check_run(path, kind, config, inputs=inputs, resume=resume)
            head: dict[str, Any] = {"kind": kind, "format": FORMAT, "config": config}
            if (path / CONFIG_FILE).exists() and has_results(path, kind):
                before = _read_head(path)
                head = {**before, **head, "inputs": {**before.get("inputs", {}), **inputs}}
            else:
                head |= {"inputs": dict(inputs)}
                if kind == Kind.TRAIN:
                    head["id"] = token_hex(4)
                write_json(path / ENVIRONMENT_FILE, environment(backend=backend, device=device))
            if samples is not None:
                head["samples"] = os.path.relpath(samples, path)
            if not (path / CONFIG_FILE).exists() or read_json(path / CONFIG_FILE) != plain(head):
                write_json(path / CONFIG_FILE, head)
            remove_drafts(path)
            for name in (METRICS_FILE, EPISODES_FILE):
                cut_torn_line(path / name)
        except BaseException:
            run.close()
            raise
        return run

    def close(self) -> None:
        """Release the folder for other processes."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @cached_property
    def _head(self) -> dict[str, Any]:
        return _read_head(self.path)

    @property
    def kind(self) -> Kind:
        """Kind of the run."""
        return Kind(self._head["kind"])

    @property
    def format(self) -> int:
        """Format of the folder."""
        return self._head["format"]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as JSON."""
        return self._head["config"]

    @property
    def inputs(self) -> Inputs:
        """What the run is computed from; empty in a run of an earlier version."""
        return self._head.get("inputs", NO_INPUTS)

    @property
    def id(self) -> str:
        """A random name of a training run, which stays when the folder moves."""
        return self._head.get("id") or f"{crc32(str(self.path.resolve()).encode()):08x}"

    @property
    def samples_file(self) -> Path:
        """Path of the run's `samples.jsonl`."""
        return Path(os.path.normpath(self.path / self._head.get("samples", SAMPLES_FILE)))

    def config_as(self, cls: type[C]) -> C:
        """The configuration as a frozen dataclass; missing keys keep their defaults.

        Raises:
            ConfigError: not a configuration of this class.
        """
        return config_from_plain(cls, self.config, str(self.path / CONFIG_FILE))

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one step's metrics, including "step"."""
        append_line(self.path / METRICS_FILE, row)

    def metrics(self) -> list[dict[str, Any]]:
        """Every step's metrics, oldest first."""
        return list(read_lines(self.path / METRICS_FILE))

    def truncate_metrics(self, after_step: int) -> None:
        """Delete the lines of steps after `after_step`, which a resumed run writes again."""
        kept = [row for row in self.metrics() if row.get("step", 0) <= after_step]
        write_text(self.path / METRICS_FILE, "".join(map(line_of, kept)))

    def log_episode(self, key: str, row: Mapping[str, Any]) -> None:
        """Append one episode under `key`, which identifies it within the run."""
        Journal(self.path / EPISODES_FILE).append(key, row)

    def episodes(self) -> dict[str, dict[str, Any]]:
        """Episodes by key, in the order first written; the last line of a key counts."""
        return Journal(self.path / EPISODES_FILE).by_key()


def is_run(path: Path) -> bool:
    """Whether `path` is a run folder, of any format. A checkpoint, which also has a `config.json`,
    is not.
    """
    if not (path / CONFIG_FILE).is_file():
        return False
    if (path / ENVIRONMENT_FILE).is_file():
        return True
    found = read_json(path / CONFIG_FILE)
    return isinstance(found, dict) and {"kind", "format", "config"} <= set(found)


def check_formats(root: Path) -> None:
    """Check that this version reads every run at or below `root`.

    Raises:
        RunError: a run has another format.
    """
    for file in sorted(root.rglob(CONFIG_FILE)):
        if is_run(file.parent):
            _read_head(file.parent)


def read_run(path: Path) -> RunFolder:
    """The run in the folder `path`, read-only; another process may be writing it.

    Raises:
        RunError: no run, or one in another format.
    """
    run = RunFolder(path)
    _ = run.kind
    return run


def _read_head(path: Path) -> dict[str, Any]:
    """The content of `config.json`: kind, format and configuration."""
    if not (path / CONFIG_FILE).is_file():
        raise RunError(f"{path} is no run folder: it has no {CONFIG_FILE}{_runs_below(path)}")
    found = read_json(path / CONFIG_FILE)
    if not isinstance(found, dict):
        raise RunError(f"{path} is no run folder: {CONFIG_FILE} is not a JSON object")
    headed = "kind" in found and "config" in found
    written_in = found.get("format") if headed else 1
    if written_in != FORMAT:
        raise _other_format(path, written_in)
    if found["kind"] not in list(Kind) or not isinstance(found["config"], dict):
        raise RunError(f"{path} is no run folder: {CONFIG_FILE} has the kind {found['kind']!r}")
    return found


def _runs_below(path: Path) -> str:
    """A hint that names the runs below `path`; empty without any."""
    files = islice(path.rglob(CONFIG_FILE), 100) if path.is_dir() else ()
    runs = sorted(str(file.parent) for file in files if is_run(file.parent))
    more = ", ..." if len(runs) > 3 else ""
    return f"; runs below it: {', '.join(runs[:3])}{more}" if runs else ""


def _other_format(path: Path, written_in: Any) -> RunError:
    try:
        by = f"lfpc {read_json(path / ENVIRONMENT_FILE)['lfpc']}"
    except (RunError, LookupError, TypeError):
        return RunError(
            f"{path} is no run folder: {CONFIG_FILE} has neither kind nor format, and "
            f"{ENVIRONMENT_FILE} names no version of lfpc"
        )
    return RunError(
        f"{path} was written by {by} in format {written_in}; this version reads format {FORMAT}: "
        f"run the command again with another output folder, or use {by}"
    )


def check_run(
    path: Path,
    kind: Kind,
    config: "DataclassInstance",
    *,
    inputs: Inputs = NO_INPUTS,
    resume: bool = True,
) -> None:
    """Check that a run can start or resume in `path`, which nothing is written to.

    Raises:
        RunError: the folder holds a run of another kind, configuration or inputs that has results,
            any run with `resume=False`, or other content.
    """
    if not (path / CONFIG_FILE).exists():
        _check_no_other_content(path, kind)
        return
    head = _read_head(path)
    if not resume:
        raise RunError(f"{path} already holds a run; continue it, or use another folder")
    if head["kind"] != kind:
        raise RunError(f"{path} holds a run of kind {head['kind']}, not {kind}; use another folder")
    if not has_results(path, kind):
        return
    before: Inputs = head.get("inputs", {})
    free = changeable_fields(type(config)) if before and inputs else frozenset[str]()
    check_same_config(path, head["config"], config, free - set(before) - set(inputs))
    changed = [name for name in inputs if before.get(name, inputs[name]) != inputs[name]]
    if changed:
        name = changed[0]
        raise RunError(
            f"{path}: the {name} of the existing run had the hash {before[name]}, but the {name} "
            f"here {'have' if name.endswith('s') else 'has'} {inputs[name]}; restore the {name}, "
            f"or use another folder"
        )
    if not before and inputs:
        log.warning(
            "%s: does not record what it was computed from; taken as unchanged: %s",
            path,
            ", ".join(inputs),
        )


def has_results(path: Path, kind: Kind) -> bool:
    """Whether the run in `path` has a result that another configuration would contradict. Questions
    that failed are none.
    """
    for name in RESULTS[kind]:
        file = path / name
        if name == EPISODES_FILE:
            if any("error" not in row for row in read_lines(file)):
                return True
        elif file.is_dir() or (file.is_file() and file.stat().st_size):
            return True
    return False


def _check_no_other_content(path: Path, kind: Kind) -> None:
    """Whether a new run may be written into a folder without one.

    Raises:
        RunError: samples or results of something else would be mixed with the run's, or replaced.
    """
    kept = [name for name in ("samples.jsonl", "results.json") if (path / name).exists()]
    if kept and kind != Kind.EVALUATION:
        raise RunError(f"{path} already holds {kept[0]}, of another command; use another folder")
