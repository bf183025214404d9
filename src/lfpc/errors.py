"""Errors a caller may want to catch. The command line prints them as one sentence and exits with 1.

LfpcError
├── BoxError         a rectangle that is empty, reversed or outside its picture
├── SampleError      a row that cannot become a Sample
├── PictureError     a file that is not a usable picture
├── ConfigError      an unknown preset or key, or a value outside its range
├── CheckpointError  a folder that does not hold the weights that were asked for
├── PolicyError      a served model that does not answer, or not with a reply
└── RunError         a run folder that cannot be written or continued
    └── DiskError    a file or folder that the system does not read or write
"""


def first_line(error: BaseException) -> str:
    """What another package's error says, in one line."""
    return next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )


class LfpcError(Exception):
    """Base class of every error this package raises on purpose."""


class BoxError(LfpcError, ValueError):
    """A rectangle is empty, reversed, not finite or outside its picture."""


class SampleError(LfpcError, ValueError):
    """A row cannot become a Sample."""


class PictureError(LfpcError, ValueError):
    """A file is missing, broken, too large or too narrow to be shown."""


class MissingPicture(PictureError):
    """There is no file where a picture should be."""


class ConfigError(LfpcError, ValueError):
    """A preset, key or value that the configuration does not know or allow."""


class CheckpointError(LfpcError):
    """A folder does not hold the weights that were asked for."""


class PolicyError(LfpcError):
    """A served model does not answer, or not with a reply."""


class RunError(LfpcError):
    """A run folder cannot be written, or holds a different run."""


class DiskError(RunError):
    """The system does not read or write a file or folder: no space, no permission, no such path."""
