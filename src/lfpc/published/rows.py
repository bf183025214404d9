"""What readers of published files share: finding files, making samples of rows, reading lettered
options.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import Any

from lfpc.errors import LfpcError, SampleError
from lfpc.published.files import TableRow, read_records
from lfpc.published.pictures import PictureStore
from lfpc.published.rejections import Rejected, reason_of
from lfpc.samples import Sample

Found = Iterator[Sample | SampleError]
"""Samples in their published order; a row that is none is a SampleError in its place."""
LETTERS = "ABCDEFGHIJ"
_MARK = re.compile(r"(?:(?<=\s)|^)(?:\(([A-J])\)\s*|([A-J])[.):]\s+)", re.MULTILINE)


def files_like(folder: Path, *patterns: str) -> list[Path]:
    """Files below `folder` that match the first pattern with any match, sorted; `folder` itself if
    it is a file.

    A pattern is compared with the path below `folder`, in lower case; its `*` reaches across
    folders.

    Raises:
        SampleError: nothing matches.
    """
    if folder.is_file():
        return [folder]
    there = {
        file.relative_to(folder).as_posix().lower(): file
        for file in folder.rglob("*")
        if file.is_file()
    }
    for pattern in patterns:
        if found := sorted(file for path, file in there.items() if fnmatchcase(path, pattern)):
            return found
    raise SampleError(
        f"{folder}: no file like {' or '.join(patterns)}; `lfpc data fetch-instructions` "
        f"says where to get it"
    )


def samples_of(
    files: Iterable[Path],
    store: PictureStore,
    make: Callable[[Mapping[str, Any], PictureStore], Sample],
) -> Found:
    """Make a sample of every row of `files`; what fails names its file and row."""
    for file in files:
        for record in read_records(file):
            yield record if isinstance(record, SampleError) else sample_of(record, store, make)


def sample_of(
    record: TableRow, store: PictureStore, make: Callable[[Mapping[str, Any], PictureStore], Sample]
) -> Sample | SampleError:
    """`make` applied to one row, its error named by file and row."""
    try:
        return make(record.values, store)
    except LfpcError as error:
        return Rejected(reason_of(error), f"{record.where}: {error}")
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
    ) as error:  # a value of another kind than the layout has
        return SampleError(
            f"{record.where}: a value of the wrong kind ({type(error).__name__}: {error})"
        )


def need(row: Mapping[str, Any], *names: str) -> Any:
    """The first of the columns `names` that the row has and that holds something.

    Raises:
        SampleError: none does.
    """
    for name in names:
        if row.get(name) not in (None, "", [], {}):
            return row[name]
    raise SampleError(f"no {' or '.join(map(repr, names))}; the row has {', '.join(map(str, row))}")


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Take lettered options off the end of a question: "... (A) red (B) blue", or a line each as
    "A. red".

    What follows the line of the last option is dropped: it tells a model how to answer, which is
    the protocol's business.

    Returns:
        The question and its options; the text as it is and () where there are fewer than two in the
        order A, B, ...
    """
    marks = list(_MARK.finditer(text))
    starts = [i for i, mark in enumerate(marks) if "A" in mark.groups()]
    for start in reversed(starts):
        in_order = takewhile(
            lambda pair: pair[0] in pair[1].groups(), zip(LETTERS, marks[start:], strict=False)
        )
        run = [mark for _, mark in in_order]
        if len(run) >= 2:
            ends = [mark.start() for mark in run[1:]] + [len(text)]
            options = [text[mark.end() : end].strip() for mark, end in zip(run, ends, strict=True)]
            options[-1] = options[-1].splitlines()[0].strip() if options[-1] else ""
            return text[: run[0].start()].strip(), tuple(options)
    return text.strip(), ()


def column_options(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Options in columns A, B, ...: those before the first empty one."""
    options: list[str] = []
    for letter in LETTERS:
        text = str(row.get(letter) if row.get(letter) is not None else "").strip()
        if not text or text.casefold() == "nan":
            break
        options.append(text)
    return tuple(options)


def lettered(answer: Any, options: Sequence[str]) -> str:
    """The letter of `answer`, given as a letter, in brackets or as the text of an option.

    Raises:
        SampleError: it is none of the options.
    """
    said = str(answer).strip().strip("().: ")
    if said.upper() in LETTERS[: len(options)] and len(said) == 1:
        return said.upper()
    if str(answer).strip() in options:
        return LETTERS[options.index(str(answer).strip())]
    raise SampleError(
        f"the answer {str(answer)[:60]!r} is neither the letter nor the text of one of its "
        f"{len(options)} options"
    )


def some_options(options: Any) -> tuple[str, ...]:
    """A list of at least two option texts.

    Raises:
        SampleError: it is not.
    """
    if (
        not isinstance(options, list | tuple)
        or len(options) < 2
        or not all(str(text).strip() for text in options)
    ):
        raise SampleError(
            f"a multiple choice question needs two options or more, got {str(options)[:60]!r}"
        )
    return tuple(str(text).strip() for text in options)


def shuffled(
    options: Sequence[str], right: int, *, seed: int, key: str
) -> tuple[tuple[str, ...], str, list[int]]:
    """Options in an order drawn from `seed` and `key`; returns them, the letter of the right one,
    and the published places.
    """
    order = list(range(len(options)))
    random.Random(f"{seed}/{key}").shuffle(order)
    return tuple(options[i] for i in order), LETTERS[order.index(right)], order
