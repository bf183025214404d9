"""Mini-o3's layout: a JSON list beside its pictures."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lfpc.data.exporters.base import asked_text, kept_row, stored_picture
from lfpc.published.pictures import PictureStore
from lfpc.published.reading import KEPT
from lfpc.samples import Sample
from lfpc.storage.files import atomic_file


def write_mini_o3(samples: Iterable[Sample], out: Path) -> int:
    """Write `train.json` and `images/` into `out`. Returns the number of samples."""
    store = PictureStore((out / "images").absolute())
    count = 0
    with atomic_file(out / "train.json") as lines:
        for count, sample in enumerate(samples, 1):
            lines.write(
                ("[\n" if count == 1 else ",\n")
                + json.dumps(_row(sample, store, out), ensure_ascii=False)
            )
        lines.write("\n]\n" if count else "[]\n")
    return count


def _row(sample: Sample, store: PictureStore, out: Path) -> dict[str, Any]:
    return {
        "doc_id": sample.id,
        "problem": f"<image>\n{asked_text(sample)}",
        "images": [os.path.relpath(stored_picture(sample, store), out.absolute())],
        "solution": f"<answer>{sample.answer}</answer>",
        "data_source": sample.source,
        KEPT: kept_row(sample),
    }
