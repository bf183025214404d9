"""What a verb of the command line is."""

from typing import Protocol


class Verb(Protocol):
    """What `lfpc VERB` does."""

    def run(self) -> str:
        """Do it; returns the last line to print, which says where the result is."""
        ...
