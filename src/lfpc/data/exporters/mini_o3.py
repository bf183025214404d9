"""Mini-o3's layout: a JSON list beside its pictures."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lfpc.data.exporters.base import Skip, asked_text, kept_row, rows_of
from lfpc.images import bytes_for_others
from lfpc.published.pictures import PictureStore
from lfpc.published.reading import KEPT
from lfpc.samples import Sample
from lfpc.storage.files import atomic_file


def write_mini_o3(samples: Iterable[Sample], out: Path, skip: Skip = None) -> int:
    """Write `train.json` and `images/` into `out`. Returns the number of samples."""
    store = PictureStore((out / "images").absolute())
    count = 0
    with atomic_file(out / "train.json") as lines:
        rows = rows_of(samples, lambda sample: _row(sample, store, out), skip)
        for count, row in enumerate(rows, 1):
            lines.write(("[\n" if count == 1 else ",\n") + json.dumps(row, ensure_ascii=False))
        lines.write("\n]\n" if count else "[]\n")
    return count


def _row(sample: Sample, store: PictureStore, out: Path) -> dict[str, Any]:
    picture = store.file_of(bytes_for_others(sample.image))
    return {
        "doc_id": sample.id,
        "problem": f"<image>\n{asked_text(sample)}",
        "images": [os.path.relpath(picture, out.absolute())],
        "solution": f"<answer>{sample.answer}</answer>",
        "data_source": sample.source,
        KEPT: kept_row(sample),
    }
