"""Records of TSV and CSV text, each read on its own: a broken one loses only itself."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator

from lfpc.errors import SampleError

LARGEST_CELL = 512 * 1024 * 1024
"""Maximum characters of a TSV cell; a longer one means an unclosed quotation mark."""


class Records:
    """Records of a table, whose cells may hold line breaks between quotation marks.

    A quotation mark that is not closed takes in the following lines. A record that does not fit is
    therefore only its first line, and the others are read once more.
    """

    def __init__(self, lines: Iterable[str], delimiter: str) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
        self._lines = iter(lines)
        self._delimiter = delimiter
        self._again: deque[str] = deque()
        self._record: list[str] = []
        """Lines of the current record."""
        self._ended = False

    def first(self) -> list[str] | None:
        """The first record; None for an empty file."""
        return self._next()

    def others(self, width: int) -> Iterator[list[str] | SampleError]:
        """The next records, of `width` cells each, or the reason why one is unreadable; an empty
        line is [].
        """
        while True:
            try:
                row = self._next()
                if row is None:
                    return
                if row and len(row) != width:
                    raise csv.Error(f"{len(row)} cells, but the first line names {width} columns")
                if len(self._record) > 1:
                    self._check_quotation_marks()
            except csv.Error as error:
                self._again.extendleft(reversed(self._record[1:]))
                self._ended = False
                yield SampleError(str(error))
            else:
                yield row

    def _next(self) -> list[str] | None:
        self._record = []
        # A reader of its own for each record: a reader may not be used further after an error.
        return next(csv.reader(self._record_lines(), delimiter=self._delimiter), None)

    def _record_lines(self) -> Iterator[str]:
        while True:
            if self._again:
                line = self._again.popleft()
            elif (line := next(self._lines, None)) is None:
                self._ended = True
                return
            self._record.append(line)
            yield line

    def _check_quotation_marks(self) -> None:
        """Raise csv.Error if a quotation mark of the current record is open at the end of the file,
        or closed by the beginning of another cell.
        """
        if self._ended:
            raise csv.Error("a quotation mark is not closed")
        for _ in csv.reader(self._record, delimiter=self._delimiter, strict=True):
            pass
