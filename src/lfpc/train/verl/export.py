"""A samples folder as verl's parquet: one row a sample, with the path of its original and its
budget. No pixels.

The first view is made, and crops are cut, where an episode is played, from the one file on disk.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lfpc.errors import SampleError
from lfpc.samples import Sample, row_of_sample, sample_from_row
from lfpc.storage.files import atomic_file

SOURCE = "lfpc"
"""verl's name for where a row comes from; it keeps metrics apart by it."""


def export_samples(samples: Sequence[Sample], file: Path) -> Path:
    """Write `samples` to `file` in one step. Returns it.

    Columns: `prompt` and `data_source` as verl wants them, `image` (absolute path) and `budget` for
    readers, and `sample`, the whole sample as a line of JSON.
    """
    with atomic_file(file, "wb") as out:
        pq.write_table(pa.Table.from_pylist([_row(sample) for sample in samples]), out)
    return file


def exported_samples(file: Path) -> list[Sample]:
    """The samples in `file`, all of them.

    Raises:
        SampleError: it is not a file that `export_samples` wrote.
    """
    try:
        lines = pq.read_table(file, columns=["sample"]).column("sample").to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise SampleError(f"{file}: not a file of exported samples ({error})") from error
    return [sample_of_line(line) for line in lines]


def sample_of_line(line: str) -> Sample:
    """The sample in one `sample` cell."""
    return sample_from_row(json.loads(line), Path("/"))


def line_of_sample(sample: Sample) -> str:
    """A sample as a `sample` cell: its row in a samples file, with an absolute path."""
    image = sample.image.absolute()
    return json.dumps(
        {**row_of_sample(sample, image.parent), "image": str(image)}, ensure_ascii=False
    )


def _row(sample: Sample) -> dict[str, Any]:
    return {
        "data_source": SOURCE,
        "prompt": [{"role": "user", "content": sample.question}],
        "image": str(sample.image.absolute()),
        "budget": sample.budget,
        "sample": line_of_sample(sample),
    }
