"""DeepEyes-47k, and the layout of verl that it is written in: parquet with prompt, images,
reward_model, extra_info.
"""

from pathlib import Path
from typing import Any

from lfpc.errors import SampleError
from lfpc.published.base import (
    Found,
    Places,
    kept_fields,
    one_picture,
    pending_rows,
    plain_question,
    with_options,
)
from lfpc.published.files import TableRow
from lfpc.published.pictures import PictureStore
from lfpc.published.rows import files_like, need
from lfpc.samples import Sample


def read_deepeyes(src: Path, places: Places) -> Found:
    """Samples of every parquet file below `src`; the question is that of extra_info, without the
    tool's description.
    """
    yield from pending_rows(files_like(src, "*.parquet"), places, _sample)


def _sample(record: TableRow, store: PictureStore) -> Sample:
    row = record.values
    extra = _struct(row, "extra_info")
    reward = _struct(row, "reward_model")
    source = str(row.get("data_source") or "")
    text = plain_question(str(extra.get("question") or _asked(need(row, "prompt"))))
    answer = str(need({**extra, **reward}, "ground_truth", "answer")).strip()
    question, options, answer = with_options(text, answer)
    sample = Sample(
        id=f"{source}/{extra['index']}"
        if extra.get("index") not in (None, "")
        else f"{source}/row-{record.number}",
        image=one_picture(need(row, "images"), store),
        question=question,
        answer=answer,
        options=options,
        category=str(row.get("env_name") or row.get("ability") or ""),
        source=source,
    )
    return kept_fields(extra, sample)


def _struct(row: Any, name: str) -> dict[str, Any]:
    found = row.get(name) or {}
    if not isinstance(found, dict):
        raise SampleError(f"{name!r} should be a struct, got {type(found).__name__}")
    return found


def _asked(prompt: Any) -> str:
    """The text of the last user message."""
    messages = [message for message in prompt if message.get("role") == "user"]
    if not messages:
        raise SampleError("'prompt' holds no message of the user")
    return str(messages[-1]["content"])
