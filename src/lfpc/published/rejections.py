"""Rejections of rows and samples: a reason for counts, and a sentence."""

from dataclasses import dataclass
from enum import StrEnum

from lfpc.errors import HugePicture, LfpcError, MissingPicture, PictureError, SampleError


class RejectReason(StrEnum):
    """Reason of a rejection."""

    ROW = "row"
    """A missing or wrong value in the row."""
    VIDEO = "video"
    """A row about a video."""
    SEVERAL_PICTURES = "several pictures"
    MISSING = "missing picture"
    OUTSIDE = "outside"
    """The picture is outside the given folders."""
    BROKEN = "broken picture"
    """The picture is truncated, damaged, or not a picture."""
    TINY = "tiny picture"
    NARROW = "narrow picture"
    """The picture is narrower than models accept."""
    ABSURD = "absurd size"
    """The header claims more pixels than any picture has: an error, or a decompression bomb."""
    DUPLICATE = "duplicate"
    """The same question about the same picture appeared before."""
    LEAK = "leak"
    """The picture is one of a benchmark."""
    NOT_DRAWN = "not drawn"
    """Not drawn into the mixture."""
    ANSWER = "answer"
    """No reply could match the answer."""


class Rejected(SampleError):
    """Exception that rejects a row, with its reason."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rejection:
    """A rejected row. Its text is the row and the detail."""

    where: str
    """File and row; empty if the detail names them."""
    reason: RejectReason
    detail: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}" if self.where else self.detail


def reason_of(error: LfpcError) -> RejectReason:
    """The reason for an error."""
    match error:
        case Rejected():
            return error.reason
        case MissingPicture():
            return RejectReason.MISSING
        case HugePicture():
            return RejectReason.ABSURD
        case PictureError():
            return RejectReason.BROKEN
        case _:
            return RejectReason.ROW
