"""Truth boxes in the files of other tools: one module per format, with `exported` and `imported`.

A file's boxes of one sample are a `BoxEntry`; `with_entries` puts entries into samples. Formats
without fields for the target and the level of a box carry both in extra fields; boxes without them
are grouped by containment.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfpc.boxing.files import coco, label_studio
from lfpc.boxing.files.entries import BoxEntry, Reading, SampleIndex, with_entries
from lfpc.samples import Sample

__all__ = ["FORMATS", "BoxEntry", "BoxFormat", "Reading", "SampleIndex", "with_entries"]


@dataclass(frozen=True, slots=True)
class BoxFormat:
    """Export and import of one tool's file."""

    exported: Callable[[Sequence[Sample], Path], Any]
    """(samples, folder of the picture paths) -> content of the JSON file."""
    imported: Callable[..., list[BoxEntry]]
    """(content, `Reading`) -> the entries. Raises SampleError, which names the invalid part of the
    file."""


FORMATS: Mapping[str, BoxFormat] = {
    "coco": BoxFormat(coco.exported, coco.imported),
    "label-studio": BoxFormat(label_studio.exported, label_studio.imported),
}
