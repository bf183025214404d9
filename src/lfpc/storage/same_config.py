"""A run's stored configuration compared with the present one."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfpc.errors import RunError
from lfpc.storage.typed import plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LONGEST_SHOWN = 120
"""Maximum characters of a setting in a message."""
_UNSET = object()


def check_same_config(
    path: Path, before: Mapping[str, Any], config: "DataclassInstance", free: frozenset[str]
) -> None:
    """Check that a run's stored configuration is `config`.

    Args:
        path: the run, for the message.
        before: the stored configuration.
        config: a frozen dataclass.
        free: fields that may differ.
    Raises:
        RunError: the first setting that differs, with both values.
    """
    difference = _first_difference(before, config, free=free)
    if difference is None:
        return
    key, was, now = difference
    if now is _UNSET:
        raise RunError(
            f"{path}: the existing run has `{key}` = {json.dumps(was)}, which this version does "
            f"not know; use the version that wrote it or another folder"
        )
    raise RunError(
        f"{path}: `{key}` is {'unset' if was is _UNSET else _shown(was, now)} in the existing run "
        f"but {_shown(now, was)} here; use the same settings or another folder"
    )


def _shown(value: Any, other: Any) -> str:
    """A value in a message; of a long text the part in which it differs from `other`."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= LONGEST_SHOWN:
        return text
    beside = json.dumps(other, ensure_ascii=False) if other is not _UNSET else ""
    pairs = enumerate(zip(text, beside, strict=False))
    same = next((place for place, (a, b) in pairs if a != b), 0)
    start = max(0, same - LONGEST_SHOWN // 4)
    end = start + LONGEST_SHOWN
    return f"{'...' * (start > 0)}{text[start:end]}{'...' * (end < len(text))}"


def _first_difference(
    found: Any, wanted: Any, key: str = "", free: frozenset[str] = frozenset()
) -> tuple[str, Any, Any] | None:
    """(key, stored value, wanted value) of the first difference between a stored configuration and
    `wanted`, outside the keys `free`; None if equal. A missing key has its default.
    """
    defaults: dict[str, Any] = {}
    if dataclasses.is_dataclass(wanted) and not isinstance(wanted, type):
        defaults = _defaults(wanted)
        wanted = {each.name: getattr(wanted, each.name) for each in dataclasses.fields(wanted)}
    if isinstance(found, dict) and isinstance(wanted, Mapping):
        wanted = {str(name): value for name, value in wanted.items()}
        for name in [*wanted, *(name for name in found if name not in wanted)]:
            value = wanted.get(name, _UNSET)
            if name in free:
                continue
            if name not in found and name in defaults and plain(value) == plain(defaults[name]):
                continue
            inner = f"{key}.{name}" if key else name
            if difference := _first_difference(found.get(name, _UNSET), value, inner):
                return difference
        return None
    if isinstance(found, list) and isinstance(wanted, list | tuple) and len(found) == len(wanted):
        for place, pair in enumerate(zip(found, wanted, strict=True)):
            if difference := _first_difference(*pair, f"{key}[{place}]"):
                return difference
        return None
    now = plain(wanted)
    return None if found == now else (key, found, now)


def _defaults(config: Any) -> dict[str, Any]:
    """The defaults of the fields of `config`."""
    found: dict[str, Any] = {}
    for each in dataclasses.fields(config):
        if each.default is not dataclasses.MISSING:
            found[each.name] = each.default
        elif each.default_factory is not dataclasses.MISSING:
            found[each.name] = each.default_factory()
    return found
