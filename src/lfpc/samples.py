"""Samples (questions about a picture), and samples folders.

A samples folder is `samples.jsonl` beside its pictures, which rows name by relative path. A row's
`boxes` is a list with one entry per target: a list of nested boxes in fractions, tightest first.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, cast

from lfpc.boxes import Box, coverage
from lfpc.errors import BoxError, SampleError
from lfpc.storage.files import LONE_SURROGATES, atomic_file, disk
from lfpc.storage.near import missing_folder
from lfpc.storage.seen import seen_texts

SAMPLES_FILE = "samples.jsonl"
_TABLES = {".csv", ".tsv", ".parquet", ".xlsx"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Letters of options, in the order shown."""
_LETTERED = re.compile(r"\(?([A-Za-z])[.):]{0,2}(?: (.+))?")
_NEEDED = ("id", "image", "question", "answer")
_KNOWN = {*_NEEDED, "options", "boxes", "budget", "category", "source", "meta"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question about one picture, with its reference answer."""

    id: str
    image: Path
    """Path of the original picture."""
    question: str
    answer: str
    """The reference answer: a text, or with options the letter or the text of one."""
    options: tuple[str, ...] = ()
    """Answer texts of a multiple choice question, in the order shown: A, B, ..."""
    boxes: tuple[tuple[Box, ...], ...] = ()
    """Nested truth boxes B_1 c B_2 c ... of each target, tightest first."""
    budget: int | None = None
    """First-view budget in visual tokens, from resolution selection; None: not selected."""
    category: str = ""
    source: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    choice: int | None = field(init=False, repr=False, compare=False)
    """The index of the right option, from `answer`, with which answers are compared; None: the
    question is open, or `answer` is none of its options."""

    def __post_init__(self) -> None:
        for name in ("id", "question", "answer"):
            if not getattr(self, name):
                raise SampleError(
                    f"sample {self.id!r} has an empty {name!r}; each sample needs "
                    f"{', '.join(_NEEDED)}"
                )
        if len(self.options) > len(LETTERS):
            raise SampleError(
                f"sample {self.id!r} has {len(self.options)} options; the maximum is {len(LETTERS)}"
            )
        object.__setattr__(self, "choice", option_of(self.answer, self.options))
        if self.budget is not None and self.budget < 1:
            raise SampleError(
                f"sample {self.id!r} has budget {self.budget}; a budget is a positive "
                f"number of visual tokens"
            )
        for nested in self.boxes:
            if not nested:
                raise SampleError(
                    f"sample {self.id!r} has a target without boxes; leave the target out instead"
                )
            for inner, outer in pairwise(nested):
                if coverage(outer, inner) < 1 - 1e-6:
                    raise SampleError(
                        f"sample {self.id!r}: box {inner.corners} is not inside "
                        f"{outer.corners}; boxes go from tightest to widest"
                    )


def option_of(answer: str, options: Sequence[str]) -> int | None:
    """The index of the option that a reference answer names: by its letter ("B", "(B)", "B.
    blue"), else by its text; None: it names none, or several options have that text.
    """
    said = " ".join(answer.split())
    texts = [" ".join(option.split()) for option in options]
    letter = _LETTERED.fullmatch(said)
    place = LETTERS.find(letter.group(1).upper()) if letter else -1
    if letter and 0 <= place < len(options) and letter.group(2) in (None, texts[place]):
        return place
    folded = [text.casefold() for text in texts]
    for listed, wanted in ((texts, said), (folded, said.casefold())):
        if listed.count(wanted) == 1:
            return listed.index(wanted)
    return None


def sample_from_row(row: Mapping[str, Any], folder: Path) -> Sample:
    """The sample in a row of a samples file, with picture paths relative to `folder`.

    Raises:
        SampleError: a missing field, an unknown field, or a value of the wrong shape.
    """
    name = row.get("id", "?")
    missing = [key for key in _NEEDED if key not in row]
    if missing:
        raise SampleError(
            f"sample {name!r} has no {missing[0]!r}; each row needs {', '.join(_NEEDED)}"
        )
    unknown = sorted(set(row) - _KNOWN)
    if unknown:
        raise SampleError(
            f"sample {name!r} has the unknown field {unknown[0]!r}; known are "
            f"{', '.join(sorted(_KNOWN))} (others go into 'meta')"
        )
    try:
        return Sample(
            id=_text(row, "id"),
            image=Path(os.path.normpath(folder / _text(row, "image"))),
            question=_text(row, "question"),
            answer=_text(row, "answer"),
            options=_options(row.get("options", [])),
            boxes=_boxes(row.get("boxes", [])),
            budget=_budget(row.get("budget")),
            category=_text(row, "category"),
            source=_text(row, "source"),
            meta=_meta(row.get("meta", {})),
        )
    except BoxError as error:
        raise SampleError(
            f"sample {name!r}: {error}; boxes are fractions of the picture"
        ) from error
    except _WrongValue as error:
        raise SampleError(f"sample {name!r} has a value of the wrong shape: {error}") from error


class _WrongValue(Exception):
    """A value of another kind than its field needs."""

    def __init__(self, name: str, needs: str, value: Any) -> None:
        match value:
            case None:
                got = "null"
            case bool():
                got = "true or false"
            case _:
                got = repr(value)[:60]
        optional = "; leave it out" if value is None and name not in _NEEDED else ""
        super().__init__(f"{name!r} needs {needs}, got {got}{optional}")


def _text(row: Mapping[str, Any], name: str) -> str:
    """A text, also from a number; "" for an optional field that is not there."""
    value = row.get(name, "")
    if name == "image" and not _is_path(value):
        raise _WrongValue(name, "the path of a picture", value)
    if not _is_text(value):
        raise _WrongValue(name, "a text", value)
    return str(value)


def _is_path(value: Any) -> bool:
    """Whether the system could have a file of this name: no NUL, no half of a surrogate pair."""
    try:
        return isinstance(value, str) and bool(value) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _options(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise _WrongValue("options", "a list of texts", value)
    texts = cast("list[Any]", value)
    wrong = [text for text in texts if not _is_text(text)]
    if wrong:
        raise _WrongValue("options", "texts", wrong[0])
    return tuple(map(str, texts))


def _boxes(value: Any) -> tuple[tuple[Box, ...], ...]:
    try:
        return tuple(tuple(_box(corners) for corners in nested) for nested in value)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, BoxError):
            raise
        needs = "a list of targets, each a list of [x0, y0, x1, y1]"
        raise _WrongValue("boxes", needs, value) from error


def _box(corners: Any) -> Box:
    if not all(map(_is_number, corners)):
        raise TypeError(corners)
    return Box(*map(float, corners))


def _budget(value: Any) -> int | None:
    if value is not None and not (_is_number(value) and value == int(value)):
        raise _WrongValue("budget", "a whole number of visual tokens", value)
    return None if value is None else int(value)


def _meta(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _WrongValue("meta", "an object", value)
    return dict(cast("Mapping[str, Any]", value))


def row_of_sample(sample: Sample, folder: Path) -> dict[str, Any]:
    """The inverse of `sample_from_row`, without empty fields."""
    row: dict[str, Any] = {
        "id": sample.id,
        "image": os.path.relpath(sample.image, folder),
        "question": sample.question,
        "answer": sample.answer,
        "options": list(sample.options),
        "boxes": [[list(box.corners) for box in nested] for nested in sample.boxes],
        "budget": sample.budget,
        "category": sample.category,
        "source": sample.source,
        "meta": dict(sample.meta),
    }
    return {key: value for key, value in row.items() if value not in (None, "", [], {})}


def scan_samples(path: Path) -> Iterator[Sample | SampleError]:
    """Every row of a samples folder (or of one `.jsonl` file): a Sample, or an error with file and
    line.

    Raises:
        SampleError: no such file.
    """
    file = path / SAMPLES_FILE if path.is_dir() else path
    if not path.exists() and not path.suffix:
        raise SampleError(
            f"{missing_folder(path)} (a samples folder holds {SAMPLES_FILE} beside its pictures)"
        )
    if not file.is_file():
        raise SampleError(
            f"{file}: no such file; a samples folder holds {SAMPLES_FILE} beside its pictures"
        )
    if file.suffix.lower() in _TABLES:
        raise SampleError(
            f"{file}: a table is no samples folder; make one of it: "
            f"`lfpc data import table {file} FOLDER`"
        )
    with file.open("rb") as lines, seen_texts() as seen:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                sample = _sample_from_line(line, file.parent)
                if not seen.add(sample.id):
                    raise SampleError(
                        f"sample id {sample.id!r} is used twice; ids name episodes, so "
                        f"each must be unique"
                    )
            except SampleError as error:
                yield SampleError(f"{file}:{number}: {error}")
            else:
                yield sample


def _sample_from_line(line: bytes, folder: Path) -> Sample:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        wide = "; the file is UTF-16, save it as UTF-8" if b"\0" in line else ""
        raise SampleError(f"not a line of JSON: {error}{wide}") from error
    if not isinstance(row, dict):
        raise SampleError(f"a row is a JSON object, got {type(row).__name__}")
    return sample_from_row(cast("dict[str, Any]", row), folder)


def iter_samples(path: Path | str) -> Iterator[Sample]:
    """Samples of a samples folder (or of one `.jsonl` file), one at a time.

    Raises:
        SampleError: no such file, or an invalid row, with its file and line.
    """
    for found in scan_samples(Path(path)):
        if isinstance(found, SampleError):
            raise found
        yield found


def read_samples(path: Path | str) -> list[Sample]:
    """All samples of a samples folder (or of one `.jsonl` file); see `iter_samples`."""
    return list(iter_samples(path))


def distinct_samples(samples: Iterable[Any]) -> Iterator[Sample]:
    """The samples, one at a time, checked.

    Raises:
        SampleError: something is no Sample, or two samples share an id.
    """
    with seen_texts() as seen:
        for number, sample in enumerate(samples):
            if not isinstance(sample, Sample):
                raise SampleError(
                    f"samples[{number}] is no Sample but {type(sample).__name__}; give a list of "
                    f"lfpc.Sample, or the path of a samples folder"
                )
            if not seen.add(sample.id):
                raise SampleError(f"sample id {sample.id!r} is used twice; ids name episodes")
            yield sample


def write_samples(samples: Iterable[Sample], folder: Path | str, *, replace: bool = True) -> Path:
    """Write `samples.jsonl` into `folder` in one step (a reader sees the old file or the new one).
    Returns its path.

    Args:
        samples: samples to write.
        folder: samples folder, created if missing.
        replace: whether rows of an earlier file may be changed or removed, such as boxes that
            somebody drew there.
    Raises:
        SampleError: something is no Sample, two samples share an id, or rows would be lost without
            `replace`; an earlier file stays.
        DiskError: the disk refuses.
    """
    folder = Path(folder)
    file = folder / SAMPLES_FILE
    lost = {} if replace or not file.exists() else _line_numbers(file)
    rows = len(lost)
    with atomic_file(file) as out:
        for sample in distinct_samples(samples):
            line = json.dumps(row_of_sample(sample, folder), ensure_ascii=False)
            out.write(line + "\n")
            lost.pop(hash(line.encode("utf-8", LONE_SURROGATES)), None)
        if lost:
            raise SampleError(
                f"{file}: {len(lost)} of {rows} rows would be changed or removed, the first in "
                f"line {min(lost.values())}, so nothing is written; name another output folder, or "
                f"move the file away"
            )
    return file


def _line_numbers(file: Path) -> dict[int, int]:
    """Number of every line of `file` that is not empty, by the line's hash."""
    with disk(file), file.open("rb") as lines:
        numbered = ((line.rstrip(b"\r\n"), number) for number, line in enumerate(lines, 1))
        return {hash(line): number for line, number in numbered if line}
