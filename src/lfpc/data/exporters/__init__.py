"""Samples in other tools' layouts, one file each: `EXPORTERS` is the index."""

from collections.abc import Callable, Iterable
from pathlib import Path

from lfpc.data.exporters.folder import write_folder
from lfpc.data.exporters.mini_o3 import write_mini_o3
from lfpc.data.exporters.verl import write_deepeyes, write_verl
from lfpc.samples import Sample

EXPORTERS: dict[str, Callable[[Iterable[Sample], Path], int]] = {
    "samples": write_folder,
    "verl": write_verl,
    "deepeyes": write_deepeyes,
    "mini-o3": write_mini_o3,
}
"""Name -> (samples, folder) -> number of samples written. Samples are streamed, so memory stays
flat."""

__all__ = ["EXPORTERS"]
