"""Results on disk and on the terminal."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def merge(file: Path, name: str, result: Result) -> None:
    """Put one benchmark's result into `file`; the others' stay."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".part")
    draft.write_text(json.dumps({**known, name: _short(result)}, indent=2) + "\n", encoding="utf-8")
    draft.replace(file)


def table(results: dict[str, Result]) -> str:
    """One line per ratio; parts of a benchmark are indented."""
    lines = [f"{'':40}{'ours':>12}{'theirs':>12}{'ratio':>9}"]
    for name, result in results.items():
        for label, part in _parts(name, result):
            lines.append(f"{label:40}{part['ours']:12.4g}{part['theirs']:12.4g}{part['theirs'] / part['ours'] if 'ratio' not in part else part['ratio']:9.2f}")
    return "\n".join(lines)


def _parts(name: str, result: Result) -> Iterator[tuple[str, Result]]:
    yield f"{name} [{result['unit']}]", result
    for key, part in result.items():
        if isinstance(part, dict) and "ours" in part:
            yield f"  {key}" + (f" [{part['unit']}]" if "unit" in part else ""), part
        if isinstance(part, dict) and "ours" in part.get("peak_memory_mib", {}):
            yield f"  {key} peak_memory_mib", part["peak_memory_mib"]


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_short(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
