"""The run folder: what a run was asked to do, where it ran, and what it wrote line by line.

`config.json` (resolved), `environment.json`, `metrics.jsonl` (a line a step), `episodes.jsonl` (a
line an episode, keyed). Both `.jsonl` files are append-only. A line counts once its line break is
on disk: what a killed process left half written is passed over on reading and cut off when the
folder is opened. Weights are not written here.
"""

import dataclasses
import json
import os
import platform
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from lfpc.answers import check_answer
from lfpc.dialogue import Action, Answer, Crop, Malformed, Turn
from lfpc.episode import Episode
from lfpc.errors import ConfigError, RunError
from lfpc.rewards import RewardTerms

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONFIG_FILE = "config.json"
ENVIRONMENT_FILE = "environment.json"
METRICS_FILE = "metrics.jsonl"
EPISODES_FILE = "episodes.jsonl"
_PACKAGES = ("lfpc", "torch", "transformers", "tokenizers", "numpy", "pillow")
_LONE_SURROGATES = "backslashreplace"
"""What UTF-8 cannot hold is written as \\uD800, which JSON reads back as it was."""
_ABSENT = object()
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk. Get it with `RunFolder.open`; every method raises RunError if the disk
    refuses.
    """

    path: Path

    @classmethod
    def open(
        cls, path: Path, config: "DataclassInstance", *, resume: bool = True, device: str = ""
    ) -> Self:
        """Create the folder, or continue the run of the same `config` that it holds.

        Args:
            path: the folder; parents are made.
            config: a frozen dataclass; written resolved, compared key by key with what is there.
            resume: whether a folder that already holds a run may be continued.
            device: where the run computes, for `environment.json`.
        Raises:
            RunError: the folder holds a run of another configuration, or any run with
                `resume=False`, or cannot be written.
        """
        wanted = plain(config)
        with _disk(path):
            path.mkdir(parents=True, exist_ok=True)
            if (path / CONFIG_FILE).exists():
                _check_same_run(path, wanted, resume=resume)
            else:
                write_json(path / ENVIRONMENT_FILE, environment(device))
                write_json(path / CONFIG_FILE, wanted)
            for name in (METRICS_FILE, EPISODES_FILE):
                _cut_torn_line(path / name)
        return cls(path)

    def log_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one step's metrics; `row` names its "step"."""
        _append(self.path / METRICS_FILE, row)

    def metrics(self) -> list[dict[str, Any]]:
        """Every step's metrics, oldest first."""
        return list(_read_lines(self.path / METRICS_FILE))

    def truncate_metrics(self, after_step: int) -> None:
        """Drop the lines of steps later than `after_step`: a resumed run writes them again."""
        kept = [row for row in self.metrics() if row.get("step", 0) <= after_step]
        _replace(self.path / METRICS_FILE, "".join(_line(row) for row in kept))

    def log_episode(self, key: str, row: Mapping[str, Any]) -> None:
        """Append one episode under `key`, which names it within the run (sample, repetition,
        setting).
        """
        _append(self.path / EPISODES_FILE, {"key": key, **row})

    def episodes(self) -> dict[str, dict[str, Any]]:
        """Episodes by key, in the order first written; of several lines with one key the last
        counts.
        """
        return {row["key"]: row for row in self.episode_lines()}

    def episode_lines(self) -> Iterator[dict[str, Any]]:
        """Every line of episodes as it was written, one at a time."""
        return _read_lines(self.path / EPISODES_FILE)


def episode_row(episode: Episode, terms: RewardTerms | None = None, **extra: Any) -> dict[str, Any]:
    """An episode as JSON: everything a page, a rescoring or a probe's comparison needs, except
    pixels.

    Sizes are [width, height] in pixels, boxes [x0, y0, x1, y1] in fractions. Of a crop, `emitted`
    is what the policy wrote (in its protocol's frame of the picture `source`) and `box` the region
    of the original that means; the turn's `region` is what was shown, and its `cut` the pixels of
    the original that were really cut. `extra` is added as it is.
    """
    sample = episode.sample
    verdict = check_answer(episode.answer, episode.sample)
    row: dict[str, Any] = {
        "sample": sample.id,
        "question": sample.question,
        "options": list(sample.options),
        "answer": sample.answer,
        "image": str(sample.image),
        "category": sample.category,
        "meta": dict(sample.meta),
        "boxes": [[list(box.corners) for box in nested] for nested in sample.boxes],
        "first_view": list(episode.first_view.size),
        "turns": [turn_row(turn) for turn in episode.turns],
        "stop": episode.stop.value,
        "said": episode.answer,
        "correct": verdict.correct,
        "method": verdict.method,
    }
    if terms is not None:
        row["reward"] = {**dataclasses.asdict(terms), "total": terms.total}
    return {**row, **extra}


def turn_row(turn: Turn) -> dict[str, Any]:
    """A turn as `episode_row` has it."""
    reply = turn.reply
    row: dict[str, Any] = {
        "text": reply.text,
        "action": _action_row(turn.action),
        "view": None if turn.view is None else list(turn.view.size),
        "region": None if turn.view is None else list(turn.view.region.corners),
        "cut": None if turn.view is None or turn.view.cut is None else list(turn.view.cut),
        "tokens": reply.usage.reply_tokens if reply.usage else len(reply.token_ids),
    }
    if reply.usage:
        row["prompt_tokens"] = reply.usage.prompt_tokens
    if reply.finish:
        row["finish"] = reply.finish
    return row


def _action_row(action: Action) -> dict[str, Any]:
    match action:
        case Crop():
            return {
                "kind": "crop",
                "box": list(action.box.corners),
                "emitted": list(action.emitted),
                "source": action.source,
            }
        case Answer(text):
            return {"kind": "answer", "text": text}
        case Malformed(reason, detail):
            return {"kind": "malformed", "reason": reason, "detail": detail}


def environment(device: str = "") -> dict[str, Any]:
    """Versions, git revision and machine, as `environment.json` keeps them. Imports none of the
    packages it names.
    """
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "git": _git_revision(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": device,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--exclude=*",
        "--abbrev=40",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def plain(value: Any) -> Any:
    """`value` as JSON would hold it: dataclasses as objects, tuples as lists, paths as text, enums
    and array scalars by value.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Path):
        return str(value)
    return getattr(value, "item", lambda: value)()  # numpy and torch scalars


def config_from_json(cls: type[C], path: Path) -> C:
    """Read a frozen dataclass back from JSON. Absent keys keep their defaults.

    Raises:
        ConfigError: no readable file, an unknown key (the nearest known one is named), a missing
            one, or a wrong value.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable configuration ({error})") from error
    return config_from_plain(cls, found, str(path))


def config_from_plain(cls: type[C], found: Any, where: str) -> C:
    """A frozen dataclass from what `plain` made of it; `where` names it in errors. Raises as
    `config_from_json` does.
    """
    return _typed(cls, found, where)


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value`, read from JSON, as the type that `hint` names; the inverse of `plain`."""
    origin = get_origin(hint)
    inner = get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _typed_dataclass(hint, value, where)
    if origin in (Union, types.UnionType):
        return _first_that_fits(inner, value, where)
    if origin in (tuple, list) and isinstance(value, list):
        same = origin is list or inner[-1:] == (Ellipsis,)
        hints = [inner[0]] * len(value) if same else inner
        if len(hints) == len(value):
            return origin(
                _typed(h, v, f"{where}[{i}]")
                for i, (h, v) in enumerate(zip(hints, value, strict=True))
            )
    elif origin is Literal and value in inner:
        return value
    elif origin is not None and isinstance(value, dict) and issubclass(dict, origin):
        return {key: _typed(inner[1], v, f"{where}.{key}") for key, v in value.items()}
    elif hint is Any or _is_scalar(hint, value):
        return value
    elif (made := _converted(hint, value)) is not _ABSENT:
        return made
    raise ConfigError(f"{where}: {value!r} is not {getattr(hint, '__name__', hint)}")


def _is_scalar(hint: Any, value: Any) -> bool:
    return (
        isinstance(hint, type)
        and isinstance(value, hint)
        and (hint is bool or not isinstance(value, bool))
    )


def _converted(hint: Any, value: Any) -> Any:
    """A path, an enum's member or a float that JSON holds as text or whole number; `_ABSENT` if
    `value` is none of these.
    """
    takes: tuple[Any, ...] = (
        (Path, Enum)
        if isinstance(value, str)
        else (float,)
        if isinstance(value, int) and not isinstance(value, bool)
        else ()
    )
    if not isinstance(hint, type) or not issubclass(hint, takes):
        return _ABSENT
    try:
        return hint(value)
    except ValueError:
        return _ABSENT


def _first_that_fits(hints: tuple[Any, ...], value: Any, where: str) -> Any:
    refusals: list[ConfigError] = []
    for hint in sorted(
        hints, key=lambda hint: not _is_scalar(hint, value)
    ):  # 1 stays an int in `int | float`
        try:
            return _typed(hint, value, where)
        except ConfigError as refusal:
            refusals.append(refusal)
    raise refusals[0]


def _typed_dataclass(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {cls.__name__} is a JSON object, got {value!r}")
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in value:
        if key not in fields:
            near = get_close_matches(key, fields, n=1, cutoff=0.0)
            raise ConfigError(
                f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    for name, field in fields.items():
        if (
            name not in value
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ):
            raise ConfigError(f"{where}: {name!r} is missing; {cls.__name__} needs it")
    return cls(
        **{key: _typed(hints[key], inner, f"{where}: {key}") for key, inner in value.items()}
    )


def _check_same_run(path: Path, wanted: Any, *, resume: bool) -> None:
    if not resume:
        raise RunError(
            f"{path} already holds a run; continue it, delete it, or name another folder"
        )
    try:
        found = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"{path / CONFIG_FILE} is not readable ({error}); delete the folder or name another one"
        ) from error
    difference = _first_difference(found, wanted)
    if difference:
        key, was, now = difference
        raise RunError(
            f"{path} holds a run of {key} = {_shown(was)}, not {_shown(now)}; give the "
            f"same settings to continue it or name another folder"
        )


def _first_difference(found: Any, wanted: Any, key: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in [*wanted, *(name for name in found if name not in wanted)]:
            inner = f"{key}.{name}" if key else str(name)
            if difference := _first_difference(
                found.get(name, _ABSENT), wanted.get(name, _ABSENT), inner
            ):
                return difference
        return None
    return None if found == wanted else (key, found, wanted)


def _shown(value: Any) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value)


def write_json(path: Path, value: Any) -> None:
    """Write `value` (see `plain`) in one step: a reader sees the old file or the new one."""
    _replace(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(plain(row), ensure_ascii=False) + "\n"


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with _disk(path), path.open("a", encoding="utf-8", errors=_LONE_SURROGATES) as out:
        out.write(_line(row))


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.part")
    with _disk(path):
        draft.write_text(text, encoding="utf-8", errors=_LONE_SURROGATES)
        draft.replace(path)


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with _disk(path), path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RunError(
                    f"{path}:{number}: not a line of JSON ({error}); delete the line to go on"
                ) from error


def _cut_torn_line(path: Path) -> None:
    """Shorten `path` to its last whole line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        keep = end = file.seek(0, os.SEEK_END)
        while keep:
            start = max(0, keep - 65536)
            file.seek(start)
            found = file.read(keep - start).rfind(b"\n")
            if found >= 0:
                keep = start + found + 1
                break
            keep = start
        if keep < end:
            file.truncate(keep)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Turn what the operating system says about `path` into one sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be written or read: {error.strerror or error}") from error
