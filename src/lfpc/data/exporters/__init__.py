"""Samples in other tools' layouts, one file each: `EXPORTERS` is the index."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lfpc.data.exporters.folder import write_folder
from lfpc.data.exporters.mini_o3 import write_mini_o3
from lfpc.data.exporters.verl import write_deepeyes, write_verl
from lfpc.errors import SampleError
from lfpc.samples import Sample
from lfpc.storage.files import FolderLock

EXPORTERS: dict[str, Callable[..., int]] = {
    "samples": write_folder,
    "verl": write_verl,
    "deepeyes": write_deepeyes,
    "mini-o3": write_mini_o3,
}
"""Name -> (samples, folder, `exporters.base.Skip`) -> number of samples written. Samples are
streamed, so memory stays flat."""


@dataclass(frozen=True, slots=True)
class Exported:
    """Counts of an export."""

    samples: int
    left_out: list[str]
    """Reasons of the others."""


def export(
    name: str, samples: Iterable[Sample | SampleError], out: Path, *, min_share: float = 0.5
) -> Exported:
    """Write samples in a layout. Invalid rows and samples with broken pictures are left out.

    Args:
        name: name of the layout in `EXPORTERS`.
        samples: samples, or the errors of their rows.
        out: folder to write.
        min_share: minimum share of samples to write; below, nothing is written.
    Raises:
        SampleError: fewer samples than `min_share`, or none; or `out` holds other samples.
        RunError: another process writes in `out`, or the disk refuses.
    """
    there = out.exists()
    read = 0
    left_out: list[str] = []

    def usable() -> Iterator[Sample]:
        nonlocal read
        for found in samples:
            read += 1
            if isinstance(found, SampleError):
                left_out.append(str(found))
            else:
                yield found
        written = read - len(left_out)
        if not written or written < min_share * read:
            first = f"; the first problem: {left_out[0]}" if left_out else ""
            raise SampleError(
                f"{written:,} of {read:,} samples could be exported, so nothing is written{first}"
            )

    try:
        with FolderLock(out):
            return Exported(EXPORTERS[name](usable(), out, left_out.append), left_out)
    except SampleError:
        if not there:
            shutil.rmtree(out, ignore_errors=True)
        raise


__all__ = ["EXPORTERS", "Exported", "export"]
