"""Rows of parquet files, and of data sets that Hugging Face's `datasets` saved: what needs Arrow,
which takes a quarter of a second to load.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from lfpc.errors import SampleError
from lfpc.published.cells import without_nan
from lfpc.published.files import TableRow


def read_parquet(file: Path) -> Iterator[TableRow | SampleError]:
    """Rows of a parquet file, eight at a time."""
    number = 0
    try:
        with pq.ParquetFile(
            file, buffer_size=1 << 20, pre_buffer=False
        ) as table:  # with pre_buffer everything read would stay in memory
            for group in range(table.num_row_groups):
                end = number + table.metadata.row_group(group).num_rows
                yield from _read_group(file, table, group, number)
                number = end
    except (pa.ArrowException, OSError, ValueError) as error:
        yield SampleError(f"{file}: not readable after row {number} ({error})")


def _read_group(
    file: Path, table: pq.ParquetFile, group: int, number: int
) -> Iterator[TableRow | SampleError]:
    """Rows of one row group, of which the first has `number` rows before it."""
    try:
        for batch in table.iter_batches(batch_size=8, row_groups=[group]):
            for i in range(batch.num_rows):
                number += 1
                yield _row(file, number, batch, i)
    except (pa.ArrowException, OSError, ValueError) as error:
        yield SampleError(f"{file}: row group {group + 1} ends after row {number} ({error})")


def _row(
    file: Path, number: int, batch: pa.RecordBatch | pa.Table, i: int
) -> TableRow | SampleError:
    """Row `i` of a batch, with the names of classes in place of their numbers, or the reason why
    one of its values is unreadable.
    """
    try:
        values = {name: batch.column(k)[i].as_py() for k, name in enumerate(batch.schema.names)}
    except (pa.ArrowException, ValueError) as error:
        return SampleError(f"{file}: row {number}: unreadable value ({error})")
    features = _features((batch.schema.metadata or {}).get(b"huggingface", b""))
    named = {name: _class_name(value, features.get(name)) for name, value in values.items()}
    return TableRow(file, number, without_nan(named))


@lru_cache(maxsize=8)
def _features(metadata: bytes) -> Mapping[str, Any]:
    """The columns that Hugging Face's `datasets` describes in the metadata of an Arrow schema."""
    try:
        return json.loads(metadata)["info"]["features"] if metadata else {}
    except (ValueError, LookupError, TypeError):
        return {}


def read_saved(folder: Path) -> Iterator[TableRow | SampleError]:
    """Rows of a data set saved by Hugging Face `datasets`, split by split; its files are
    memory-mapped.
    """
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError as error:
        raise SampleError(
            f"{folder}: a Hugging Face data set needs the package `datasets`: pip install "
            f"'lfpc[data]'"
        ) from error
    try:
        saved = load_from_disk(str(folder))
        splits = dict(saved) if isinstance(saved, DatasetDict) else {"": saved}
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise SampleError(f"{folder}: not readable as a Hugging Face data set ({error})") from error
    for split, rows in splits.items():
        number = 0
        # As Arrow stores them: pictures are bytes or a path, at any depth, and are not decoded.
        for batch in rows.with_format("arrow").iter(batch_size=8):
            batch = cast("pa.Table", batch)
            for i in range(batch.num_rows):
                number += 1
                row = _row(folder / str(split), number, batch, i)
                yield row if isinstance(row, SampleError) else replace(row, split=str(split))


def _class_name(value: Any, feature: Any) -> Any:
    """A value by the description of its feature: a class by its name, also inside lists and
    structs.
    """
    if isinstance(feature, list):  # older versions write a list as a list of its only feature
        feature = {"feature": feature[0] if feature else None}
    if not isinstance(feature, Mapping):
        return value
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(value, int) and names is not None:
        return names[value] if 0 <= value < len(names) else None  # -1: no class
    if isinstance(value, list):
        return [_class_name(one, feature.get("feature", feature)) for one in value]
    if isinstance(value, dict):
        inner = feature["feature"] if feature.get("_type") in ("Sequence", "List") else feature
        return {name: _class_name(one, inner.get(name)) for name, one in value.items()}
    return value
