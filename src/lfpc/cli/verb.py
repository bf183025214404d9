"""The type of a verb of the command line."""

from typing import Protocol


class Verb(Protocol):
    """A verb: its fields are the options, its docstring the help text."""

    def run(self) -> str:
        """Do the work; returns the last line to print, with the place of the result."""
        ...
