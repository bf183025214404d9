"""Errors for callers to catch. The command line prints them as one sentence and exits with 1.

A message names a setting by its Python name in backticks, `max_new_tokens`; the command line prints
it as the option that is typed, --max-new-tokens (`lfpc.cli.typed`).

LfpcError
├── BoxError         a rectangle that is empty, reversed or outside its picture
├── SampleError      a row that is not a valid sample
├── PictureError     a file that is not a usable picture
├── ConfigError      an unknown preset or key, or a value outside its range
├── CheckpointError  a folder without the requested weights
├── PolicyError      a served model that gives no reply, or a judge that gives no verdict
└── RunError         a run folder that cannot be written or resumed
    ├── DiskError    a file or folder that the system cannot read or write
    └── Incomplete   results that lack questions; everything else is written
"""


def first_line(error: BaseException) -> str:
    """The message of another package's error in one line."""
    return next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )


class LfpcError(Exception):
    """Base class of this package's errors."""


class BoxError(LfpcError, ValueError):
    """A rectangle is empty, reversed, not finite or outside its picture."""


class SampleError(LfpcError, ValueError):
    """A row is not a valid sample."""


class PictureError(LfpcError, ValueError):
    """A picture file is missing, damaged, too large or too narrow."""


class MissingPicture(PictureError):
    """A picture file does not exist."""


class HugePicture(PictureError):
    """A picture file claims more pixels than any picture has."""


class ConfigError(LfpcError, ValueError):
    """A preset, key or value of a configuration is unknown or invalid."""


class CheckpointError(LfpcError):
    """A folder does not hold the requested weights."""


class PolicyError(LfpcError):
    """A model gives no reply, or a judge no verdict."""


class RunError(LfpcError):
    """A run folder cannot be written, or holds a different run."""


class DiskError(RunError):
    """The system cannot read or write a file or folder: no space, no permission, no such path."""


class Incomplete(RunError):
    """Results are written, but some of their questions failed or are undecided."""
