"""What exporters share: the question as one text, pictures beside a table, and the fields that a
published layout lacks.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from lfpc.errors import PictureError
from lfpc.samples import LETTERS, Sample, row_of_sample

R = TypeVar("R")
Skip = Callable[[str], None] | None
"""Takes the reason of each sample that is left out; None: the first one is raised."""


def asked_text(sample: Sample) -> str:
    """The question, with its options on lettered lines."""
    lines = [f"({letter}) {text}" for letter, text in zip(LETTERS, sample.options, strict=False)]
    return "\n".join([sample.question, *lines])


def kept_row(sample: Sample) -> str:
    """The whole sample but its picture, as JSON: an import of our own exports gives back the same
    samples.
    """
    row = row_of_sample(sample, sample.image.parent)
    return json.dumps(
        {key: value for key, value in row.items() if key != "image"}, ensure_ascii=False
    )


def rows_of(samples: Iterable[Sample], make: Callable[[Sample], R], skip: Skip) -> Iterator[R]:
    """What `make` makes of each sample; one with a broken picture is left out.

    Raises:
        PictureError: a broken picture, without `skip`.
    """
    for sample in samples:
        try:
            row = make(sample)
        except PictureError as error:
            if skip is None:
                raise
            skip(f"sample {sample.id!r}: {error}")
        else:
            yield row
