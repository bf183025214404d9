"""A person's decision about the truth boxes of a sample, stored in the sample's `meta` under
"boxing".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from lfpc.boxes import Box
from lfpc.errors import SampleError
from lfpc.samples import Sample

META_KEY = "boxing"
LONGEST_NOTE = 1_000
"""Maximum characters of a flag's note."""
State = Literal["todo", "done", "skipped"]
Nested = tuple[tuple[Box, ...], ...]
"""Boxes of each target, tightest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxing:
    """State of a sample. Boxes of a "todo" sample were not checked by a person."""

    state: State = "todo"
    flagged: bool = False
    """Whether the sample needs another look."""
    note: str = ""
    """Reason of the flag."""
    by: str = ""
    """Name of the last person who changed it."""

    def __post_init__(self) -> None:
        if self.state not in get_args(State):
            raise SampleError(
                f"the state of a sample is one of {', '.join(get_args(State))}, got {self.state!r}"
            )
        if not (
            isinstance(self.flagged, bool)
            and isinstance(self.note, str)
            and isinstance(self.by, str)
        ):
            raise SampleError("a boxing needs a boolean 'flagged' and texts 'note' and 'by'")
        if len(self.note) > LONGEST_NOTE:
            raise SampleError(
                f"a note has at most {LONGEST_NOTE} characters, this one has {len(self.note)}"
            )


def boxing_of(sample: Sample) -> Boxing:
    """The decision in `sample.meta`; "todo" without one.

    Raises:
        SampleError: the field is not a decision.
    """
    found = sample.meta.get(META_KEY, {})
    if not isinstance(found, Mapping):
        raise SampleError(
            f"sample {sample.id!r}: meta[{META_KEY!r}] must be an object, got "
            f"{type(found).__name__}"
        )
    try:
        return Boxing(**found)
    except TypeError as error:
        raise SampleError(
            f"sample {sample.id!r}: meta[{META_KEY!r}] has an unknown field ({error})"
        ) from error


def with_boxing(sample: Sample, boxes: Nested, boxing: Boxing) -> Sample:
    """`sample` with these boxes and this decision.

    Raises:
        SampleError: the boxes of a target are not nested.
    """
    changed = {
        key: value for key, value in asdict(boxing).items() if value != getattr(Boxing(), key)
    }
    meta = {key: value for key, value in sample.meta.items() if key != META_KEY}
    return replace(sample, boxes=boxes, meta={**meta, META_KEY: changed} if changed else meta)


def nested_from_lists(targets: Any) -> Nested:
    """Nested boxes from JSON: for each target a list of [x0, y0, x1, y1] in fractions, tightest
    first.

    Raises:
        SampleError: another shape, or an invalid box.
    """
    try:
        return tuple(tuple(Box(*map(float, corners)) for corners in nested) for nested in targets)
    except (TypeError, ValueError, OverflowError) as error:  # a BoxError is a ValueError
        raise SampleError(
            f"boxes are a list of targets, each a list of [x0, y0, x1, y1] in fractions: {error}"
        ) from error


def lists_of_nested(boxes: Sequence[Sequence[Box]]) -> list[list[list[float]]]:
    """The inverse of `nested_from_lists`."""
    return [[list(box.corners) for box in nested] for nested in boxes]
