"""A samples folder with copies of its pictures, to move or pack as a whole."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lfpc.data.exporters.base import Skip, rows_of
from lfpc.published.pictures import PictureStore
from lfpc.published.soundness import sound_picture
from lfpc.samples import Sample, write_samples


def write_folder(samples: Iterable[Sample], out: Path, skip: Skip = None) -> int:
    """Write `samples.jsonl` and `pictures/` into `out`. Returns the number of samples."""
    store = PictureStore((out / "pictures").absolute())
    count = 0

    def copied(sample: Sample) -> Sample:
        nonlocal count
        kind = sound_picture(sample.image)
        made = replace(sample, image=store.adopt(sample.image.absolute(), kind))
        count += 1
        return made

    write_samples(rows_of(samples, copied, skip), out.absolute(), replace=False)
    return count
