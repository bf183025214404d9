"""Truth boxes in the files of other tools: one file a format, each with `exported` and `imported`.

What a file says about a sample is an `BoxEntry`; `with_entries` puts entries into samples. Formats
without a place for "which target" and "which of its nested boxes" carry both in extra fields; boxes
that come without them are grouped by what contains what.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfpc.boxing.files import coco, label_studio
from lfpc.boxing.files.entries import BoxEntry, with_entries
from lfpc.samples import Sample

__all__ = ["FORMATS", "BoxEntry", "BoxFormat", "with_entries"]


@dataclass(frozen=True, slots=True)
class BoxFormat:
    """How one tool's file is made and read."""

    exported: Callable[[Sequence[Sample], Path], Any]
    """Samples and the folder that picture paths start at, to what the JSON file holds."""
    imported: Callable[[Any], list[BoxEntry]]
    """The inverse. Raises SampleError, which says what in the file is not as it should be."""


FORMATS: Mapping[str, BoxFormat] = {
    "coco": BoxFormat(coco.exported, coco.imported),
    "label-studio": BoxFormat(label_studio.exported, label_studio.imported),
}
