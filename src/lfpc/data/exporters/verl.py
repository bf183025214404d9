"""verl's parquet layout with pictures inside, and DeepEyes' variant with its environment."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lfpc.data.exporters.base import asked_text, kept_row
from lfpc.errors import PictureError
from lfpc.published.reading import KEPT
from lfpc.samples import Sample
from lfpc.storage.files import atomic_file

GROUP_BYTES = 64 * 2**20
GROUP_ROWS = 1000
"""Maximum bytes and rows of a row group, which bound memory."""
_EXTRA = pa.struct([(name, pa.string()) for name in ("question", "answer", "index", "split", KEPT)])
_COLUMNS = [
    ("data_source", pa.string()),
    ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
    ("ability", pa.string()),
    ("reward_model", pa.struct([("ground_truth", pa.string()), ("style", pa.string())])),
    ("extra_info", _EXTRA),
]
DEEPEYES_ENVIRONMENT = "visual_toolbox_v2"
"""Value of `env_name` for DeepEyes' trainer."""


def write_verl(samples: Iterable[Sample], out: Path) -> int:
    """Write `train.parquet` into `out`. Returns the number of samples."""
    return _write(samples, out, pa.schema(_COLUMNS), {})


def write_deepeyes(samples: Iterable[Sample], out: Path) -> int:
    """Write `train.parquet` with the column `env_name` into `out`. Returns the number of
    samples.
    """
    return _write(
        samples,
        out,
        pa.schema([*_COLUMNS, ("env_name", pa.string())]),
        {"env_name": DEEPEYES_ENVIRONMENT},
    )


def _write(samples: Iterable[Sample], out: Path, schema: pa.Schema, more: dict[str, str]) -> int:
    count = 0
    with (
        atomic_file(out / "train.parquet", "wb") as draft,
        pq.ParquetWriter(draft, schema, data_page_size=2**20, write_batch_size=8) as file,
    ):
        for rows in _groups(samples):
            file.write_table(pa.Table.from_pylist([row | more for row in rows], schema))
            count += len(rows)
    return count


def _groups(samples: Iterable[Sample]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for sample in samples:
        rows.append(_row(sample))
        size += len(rows[-1]["images"][0]["bytes"])
        if size > GROUP_BYTES or len(rows) == GROUP_ROWS:
            yield rows
            rows = []
            size = 0
    if rows:
        yield rows


def _row(sample: Sample) -> dict[str, Any]:
    text = asked_text(sample)
    try:
        picture = sample.image.read_bytes()
    except OSError as error:
        raise PictureError(f"{sample.image}: cannot be read ({error.strerror or error})") from error
    return {
        "data_source": sample.source,
        "prompt": [{"role": "user", "content": f"<image>\n{text}"}],
        "images": [{"bytes": picture, "path": None}],
        "ability": sample.category,
        "reward_model": {"ground_truth": sample.answer, "style": "rule"},
        "extra_info": {
            "question": text,
            "answer": sample.answer,
            "index": sample.id,
            "split": "train",
            KEPT: kept_row(sample),
        },
    }
