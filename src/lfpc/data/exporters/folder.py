"""A samples folder with copies of its pictures, to move or pack as a whole."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from lfpc.data.exporters.base import stored_picture
from lfpc.published.pictures import PictureStore
from lfpc.samples import Sample, write_samples


def write_folder(samples: Iterable[Sample], out: Path) -> int:
    """Write `samples.jsonl` and `pictures/` into `out`. Returns the number of samples."""
    store = PictureStore((out / "pictures").absolute())
    count = 0

    def copied() -> Iterator[Sample]:
        nonlocal count
        for sample in samples:
            yield replace(sample, image=stored_picture(sample, store))
            count += 1

    write_samples(copied(), out.absolute())
    return count
