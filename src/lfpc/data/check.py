"""Is a samples folder fit to be played: every row a sample, every picture readable, every answer one of its options."""

from collections.abc import Iterator
from pathlib import Path

from lfpc.answers import check_answer
from lfpc.errors import LfpcError, SampleError
from lfpc.images import open_picture, smart_resize
from lfpc.samples import Sample, scan_samples


def check_samples(path: Path) -> Iterator[str | None]:
    """Look at every row of a samples folder (or `.jsonl` file) and at its picture.

    Yields:
        For each row what is wrong with it; None: nothing.

    Raises:
        SampleError: there is no such file.
    """
    for found in scan_samples(path):
        yield str(found) if isinstance(found, SampleError) else _problem(found)


def _problem(sample: Sample) -> str | None:
    try:
        smart_resize(open_picture(sample.image).size, min_tokens=1, max_tokens=1)
    except LfpcError as error:
        return f"sample {sample.id!r}: {error}"
    if sample.options and not check_answer(sample.answer, sample).correct:
        return (
            f"sample {sample.id!r}: answer {sample.answer!r} is neither the letter nor the text of one of its {len(sample.options)} options"
        )
    return None
