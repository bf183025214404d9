"""DeepEyes-47k and its layout, verl's: parquet with prompt, images, reward_model, extra_info.

The question comes from extra_info, without the description of the tool.
"""

from typing import Any

from lfpc.errors import SampleError
from lfpc.published.files import TableRow
from lfpc.published.options import with_options
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import PublishedSet, hugging_face
from lfpc.published.reading import (
    answer_of,
    kept_fields,
    need,
    one_picture,
    plain_question,
    reader,
    text_of,
)
from lfpc.samples import Sample


def _sample(row: TableRow, store: PictureStore) -> Sample:
    values = row.values
    extra = _struct(values, "extra_info")
    reward = _struct(values, "reward_model")
    source = text_of(values, "data_source")
    text = plain_question(text_of(extra, "question") or _asked(need(values, "prompt")))
    answer = answer_of({**extra, **reward}, "ground_truth", "answer")
    question, options, answer = with_options(text, answer)
    sample = Sample(
        id=f"{source}/{text_of(extra, 'index', default=row.name)}",
        image=one_picture(need(values, "images"), store),
        question=question,
        answer=answer,
        options=options,
        category=text_of(values, "env_name", "ability"),
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
    return str(need(messages[-1], "content"))


_read = reader("*.parquet", make=_sample)
DEEPEYES = PublishedSet(
    name="deepeyes",
    fetch=hugging_face(
        "deepeyes", ["ChenShawn/DeepEyes-Datasets-47k"], "The parquet files hold the pictures."
    ),
    read=_read,
)
VERL = PublishedSet(
    name="verl",
    fetch="Any folder DIR with parquet files in verl's layout: columns prompt, images, "
    "reward_model and extra_info, as `lfpc data export verl` writes them.",
    read=_read,
)
