"""verl's parquet layout with pictures inside, and DeepEyes' variant with its environment."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lfpc.data.exporters.base import Skip, asked_text, kept_row, rows_of
from lfpc.images import bytes_for_others
from lfpc.published.reading import KEPT
from lfpc.samples import Sample
from lfpc.storage.files import LONE_SURROGATES, atomic_file

Row = dict[str, Any]
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


def write_verl(samples: Iterable[Sample], out: Path, skip: Skip = None) -> int:
    """Write `train.parquet` into `out`. Returns the number of samples."""
    return _write(rows_of(samples, _row, skip), out, pa.schema(_COLUMNS), {})


def write_deepeyes(samples: Iterable[Sample], out: Path, skip: Skip = None) -> int:
    """Write `train.parquet` with the column `env_name` into `out`. Returns the number of
    samples.
    """
    columns = pa.schema([*_COLUMNS, ("env_name", pa.string())])
    return _write(rows_of(samples, _row, skip), out, columns, {"env_name": DEEPEYES_ENVIRONMENT})


def _write(rows: Iterable[Row], out: Path, schema: pa.Schema, more: dict[str, str]) -> int:
    count = 0
    with (
        atomic_file(out / "train.parquet", "wb") as draft,
        pq.ParquetWriter(draft, schema, data_page_size=2**20, write_batch_size=8) as file,
    ):
        for group in _groups(rows):
            file.write_table(pa.Table.from_pylist([row | more for row in group], schema))
            count += len(group)
    return count


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["images"][0]["bytes"])
        if size > GROUP_BYTES or len(group) == GROUP_ROWS:
            yield group
            group = []
            size = 0
    if group:
        yield group


def _row(sample: Sample) -> Row:
    text = asked_text(sample)
    row = {
        "data_source": sample.source,
        "prompt": [{"role": "user", "content": f"<image>\n{text}"}],
        "images": [{"bytes": bytes_for_others(sample.image), "path": None}],
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
    return _utf8(row)


def _utf8(value: Any) -> Any:
    r"""A value with lone surrogates, which Parquet refuses, written as \uD800 in its texts."""
    match value:
        case str():
            return value.encode("utf-8", LONE_SURROGATES).decode("utf-8")
        case dict():
            return {key: _utf8(inner) for key, inner in value.items()}
        case list():
            return [_utf8(inner) for inner in value]
        case _:
            return value
