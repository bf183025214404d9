"""Dataclasses as JSON holds them, and back."""

import dataclasses
import types
from collections.abc import Mapping
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lfpc.errors import ConfigError

_ABSENT = object()
C = TypeVar("C")


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
