"""VisualProbe (Mini-o3, arXiv 2509.07969): open questions about tiny things, in an easy, a medium
and a hard part.

Published as a JSON list per part beside a folder of pictures. Answers are free text: a judge
decides what no rule can.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfpc.published.base import plain_question
from lfpc.published.pictures import PictureStore
from lfpc.published.rows import Found, files_like, need, samples_of
from lfpc.published.visualprobe import unwrapped
from lfpc.samples import Sample


def read_visualprobe(folder: Path, work: Path, seed: int) -> Found:
    """Samples of every part below `folder`; the category is the part's folder name ("hard" of
    VisualProbe_Hard).
    """
    for file in files_like(folder, "*val.json", "*test.json", "*.json"):
        part = file.parent.name.lower().removeprefix("visualprobe_")
        store = PictureStore(work / "pictures", roots=(file.parent, folder))
        yield from samples_of(
            [file], store, lambda row, store, part=part: _sample(row, store, part)
        )


def _sample(row: Mapping[str, Any], store: PictureStore, part: str) -> Sample:
    return Sample(
        id=f"{part}/{need(row, 'doc_id')}",
        image=store.file_of(need(row, "images", "image")),
        question=plain_question(str(need(row, "problem"))),
        answer=unwrapped(str(need(row, "solution"))),
        category=part,
        source=str(row.get("data_source") or "visualprobe"),
    )
