"""Samples folders: checks, where published files are. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from lfpc.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Read every row of a samples folder and open every picture; one line per problem."""

    folder: Positional[Path]
    """Samples folder: samples.jsonl beside its pictures."""

    def run(self) -> str:
        from lfpc.data.check import check_samples
        from lfpc.errors import SampleError

        rows = wrong = 0
        for problem in check_samples(self.folder):
            rows += 1
            if problem:
                wrong += 1
                print(problem)
        if wrong or not rows:
            raise SampleError(f"{self.folder}: {wrong} of {rows} samples cannot be played")
        return f"{self.folder}: {rows} samples, all can be played"


@dataclass(frozen=True, kw_only=True)
class FetchInstructions:
    """Print where a person gets the files of a benchmark. Nothing is downloaded."""

    task: Positional[str]
    """Name of the benchmark; any other word lists the known ones."""

    def run(self) -> str:
        from lfpc.evaluate.benchmarks import fetch_instructions

        return fetch_instructions(self.task)


VERBS: dict[str, type[Verb]] = {
    "data check": DataCheck,
    "data fetch-instructions": FetchInstructions,
}
