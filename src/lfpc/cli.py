"""The command line: `lfpc VERB`. Only parsing and a call.

A verb is a frozen dataclass: its docstring is the verb's help, the docstring under each field the option's, and `run` does
the work and returns the last line to print. Put it into `VERBS` under its name (two words for a group, as in "data check").
Imports stay inside `run`, so that `lfpc --help` is quick and needs no torch.

Exit codes: 0 done, 1 a failure explained in one sentence, 2 wrong usage, 130 interrupted.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import tyro
from tyro.conf import Positional

import lfpc
from lfpc.errors import LfpcError


class Verb(Protocol):
    """What `lfpc VERB` does."""

    def run(self) -> str:
        """Do it; returns the last line to print, which says where the result is."""
        ...


@dataclass(frozen=True, kw_only=True)
class Play:
    """Answer the questions of a samples folder yourself, shown and told exactly what a model would be."""

    folder: Positional[Path]
    """Samples folder: samples.jsonl beside its pictures."""
    out: Path = Path("out/play")
    """Folder for the pictures that are shown."""
    budget: int | None = None
    """Visual tokens of the first picture; None: each sample's own, or 1024 if it has none."""
    questions: int | None = None
    """How many questions to ask; None: all."""
    max_turns: int = 6
    """Replies after which a question ends unanswered."""

    def run(self) -> str:
        from lfpc.policies.human import play_folder

        return play_folder(self.folder, self.out, budget=self.budget, questions=self.questions, max_turns=self.max_turns)


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


VERBS: dict[str, type[Verb]] = {
    "play": Play,
    "data check": DataCheck,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code; wrong usage leaves through SystemExit(2)."""
    try:
        verb = _parse(list(sys.argv[1:] if arguments is None else arguments))
        print(verb.run(), flush=True)
    except LfpcError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; what is written stays readable, and the same command goes on from it")
        return 130
    except OSError as error:  # a full disk, a folder that may not be written: the system's own sentence says which
        return _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
    return 0


def _parse(arguments: list[str]) -> Verb:
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in VERBS:
            return tyro.cli(VERBS[name], prog=f"lfpc {name}", args=arguments[words:])
    group = {name: verb for name, verb in VERBS.items() if arguments and name.startswith(f"{arguments[0]} ")}
    verbs, rest = (group, arguments[1:]) if group else (VERBS, arguments)
    return tyro.extras.subcommand_cli_from_dict(dict(verbs), prog="lfpc", description=lfpc.__doc__, args=rest)


def _fail(sentence: str) -> int:
    print(f"lfpc: {' '.join(sentence.split())}", file=sys.stderr)
    return 1
