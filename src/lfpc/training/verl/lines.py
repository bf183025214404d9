"""A sample as a line of JSON in verl's queue, with the path of its picture and no pixels."""

import json
from pathlib import Path

from lfpc.samples import Sample, row_of_sample, sample_from_row


def line_of_sample(sample: Sample) -> str:
    """The sample's row in a samples file, with an absolute path."""
    image = sample.image.absolute()
    return json.dumps(
        {**row_of_sample(sample, image.parent), "image": str(image)}, ensure_ascii=False
    )


def sample_of_line(line: str) -> Sample:
    """The inverse."""
    return sample_from_row(json.loads(line), Path("/"))
