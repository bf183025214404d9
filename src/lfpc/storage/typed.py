"""Dataclasses to JSON and back."""

import dataclasses
import json
from collections.abc import Mapping
from difflib import get_close_matches
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

from lfpc.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

C = TypeVar("C")
_CHANGEABLE = "changeable"
Changeable = Annotated[C, _CHANGEABLE]
"""A configuration field that a resumed run may change, because results do not depend on it, or
because the run compares content in place of the path."""

LONGEST_VALUE = 200
"""Maximum characters of a value in an error."""


@cache
def changeable_fields(cls: type) -> frozenset[str]:
    """Names of the `Changeable` fields of a dataclass."""
    hints = get_type_hints(cls, include_extras=True)
    return frozenset(
        name for name, hint in hints.items() if _CHANGEABLE in getattr(hint, "__metadata__", ())
    )


def plain(value: Any) -> Any:
    """`value` as JSON: dataclasses as objects, tuples as lists, paths as text, enums and array
    scalars by value.
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
    """The inverse of `plain` for a frozen dataclass. Missing keys keep their defaults.

    Args:
        cls: the dataclass.
        found: value read from JSON.
        where: name of `found` in errors; empty: none.
    Raises:
        ConfigError: an unknown key (with the nearest known one as a hint), a missing one, or a
            wrong value.
    """
    from pydantic import ValidationError  # here, as it is slow to import

    try:
        text = json.dumps(found, default=repr)
        return _adapter(cls).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        prefix = f"{where}: " if where else ""
        raise ConfigError(f"{prefix}{_sentence(cls, error.errors()[0])}") from error


@cache
def _adapter(cls: type[C]) -> "TypeAdapter[C]":
    """Reads a dataclass from JSON; making it takes 20 ms."""
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _sentence(cls: Any, error: Any) -> str:
    """The first error, after its place in the configuration."""
    place: tuple[str | int, ...] = error["loc"]
    match error["type"]:
        case "unexpected_keyword_argument":
            names = [field.name for field in dataclasses.fields(_class_at(cls, place[:-1]))]
            near = get_close_matches(str(place[-1]), names, n=1, cutoff=0.0)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return f"{_prefix(place[:-1])}unknown key {place[-1]!r}{hint}"
        case "missing" if isinstance(place[-1], int):
            return f"{_prefix(place)}is missing"
        case "missing":
            needs = _class_at(cls, place[:-1]).__name__
            return f"{_prefix(place[:-1])}{place[-1]!r} is missing; {needs} needs it"
        case "value_error":
            return f"{_prefix(place)}{error['ctx']['error']}"
        case _:
            said = error["msg"].removeprefix("Input ")
            return f"{_prefix(place)}{_short(error['input'])} {said}"


def _short(value: Any) -> str:
    """`value` for a sentence."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _prefix(place: tuple[str | int, ...]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return f"{''.join(steps).removeprefix('.')}: " if place else ""


def _class_at(hint: Any, place: tuple[str | int, ...]) -> Any:
    """The dataclass at `place` within the type `hint`, which may be optional or a sequence."""
    cls = next(one for one in (hint, *get_args(hint)) if dataclasses.is_dataclass(one))
    match place:
        case (int(), *rest):
            return _class_at(cls, tuple(rest))
        case (str() as name, *rest):
            return _class_at(get_type_hints(cls)[name], tuple(rest))
        case _:
            return cls
