"""Why a row or a sample is left out: a reason that is counted, and a sentence."""

from dataclasses import dataclass
from enum import StrEnum

from lfpc.errors import LfpcError, MissingPicture, PictureError, SampleError


class RejectReason(StrEnum):
    """Why something was left out."""

    ROW = "row"
    """The row lacks something, or holds a value of another kind."""
    VIDEO = "video"
    """It is about a video."""
    SEVERAL_PICTURES = "several pictures"
    MISSING = "missing picture"
    OUTSIDE = "outside"
    """The picture's name leads out of the folders that were given."""
    BROKEN = "broken picture"
    """Truncated, damaged, or no picture."""
    TINY = "tiny picture"
    NARROW = "narrow picture"
    """Narrower than a model takes."""
    ABSURD = "absurd size"
    """Its header claims more pixels than any picture has: an error, or a decompression bomb."""
    DUPLICATE = "duplicate"
    """The same question about the same picture was there before."""
    LEAK = "leak"
    """The picture is one of a benchmark."""
    NOT_DRAWN = "not drawn"
    """There are more samples than are wanted."""
    ANSWER = "answer"
    """Nobody could give the answer."""


class Rejected(SampleError):
    """A row that is left out for a reason of its own."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is left out. As text: where it is, and the detail."""

    where: str
    """File and row; empty where the detail names them."""
    reason: RejectReason
    detail: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}" if self.where else self.detail


def reason_of(error: LfpcError) -> RejectReason:
    """The reason that an error stands for."""
    match error:
        case Rejected():
            return error.reason
        case MissingPicture():
            return RejectReason.MISSING
        case PictureError():
            return RejectReason.BROKEN
        case _:
            return RejectReason.ROW
