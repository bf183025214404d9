"""What exporters share: the question as one text, pictures beside a table, and the fields that a
published layout lacks.
"""

import json
from pathlib import Path

from lfpc.picture_files import picture_file
from lfpc.published.pictures import PictureStore
from lfpc.samples import LETTERS, Sample, row_of_sample


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


def stored_picture(sample: Sample, store: PictureStore) -> Path:
    """A copy of the sample's picture in `store`.

    Raises:
        PictureError: the picture is missing or unreadable.
    """
    return store.adopt(sample.image.absolute(), picture_kind(sample.image))


def picture_kind(picture: Path) -> str:
    """Format of a picture file by its content, such as "png"."""
    with picture_file(picture) as file:
        return (file.format or "png").lower()
