"""ZoomBench (arXiv 2602.11858): 845 questions about a small region, multiple choice and open, with
the region's box.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.rows import Found, files_like, lettered, need, samples_of, split_options
from lfpc.samples import Sample


def read_zoombench(folder: Path, work: Path, seed: int) -> Found:
    """Samples of the JSON or parquet files below `folder`. Only the whole picture is read, never
    the published crop.
    """
    files = files_like(folder, "*.parquet", "*.jsonl", "*.json")
    number = 0

    def make(row: Mapping[str, Any], store: PictureStore) -> Sample:
        nonlocal number
        number += 1
        return _sample(row, store, str(row.get("index", row.get("id", number))))

    for file in files:
        yield from samples_of(
            [file], PictureStore(work / "pictures", roots=(file.parent, folder)), make
        )


def _sample(row: Mapping[str, Any], store: PictureStore, name: str) -> Sample:
    prompt = str(need(row, "prompt", "question")).replace("<image>", "").strip()
    answer = str(need(row, "answer"))
    question, options = split_options(prompt)
    picture = store.file_of(need(row, "image"))
    return Sample(
        id=name,
        image=picture,
        question=question if options else prompt,
        answer=lettered(answer, options) if options else answer,
        options=options,
        boxes=pixel_boxes(row.get("bbox"), picture),
        category=str(row.get("question_type") or row.get("category") or ""),
        source="zoombench",
    )
