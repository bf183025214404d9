"""The command line, `lfpc VERB`: it parses options and makes one call.

A verb is a frozen dataclass: its docstring is the verb's help, the docstring under each field the
option's, and `run` does the work and returns the last line to print. Put it into the `VERBS` of its
file under its name (two words for a group, as in "data check"). Options that a configuration class
declares are not repeated: the verb embeds that class (`lfpc.options.Embedded`). Other imports stay
inside `run`, so that `lfpc --help` is quick and needs no torch.

Exit codes: 0 done, 1 a failure explained in one sentence (also where results are written but lack
questions, and where a dry run does not fit), 2 wrong usage, 130 interrupted by Ctrl-C, 143 ended by
SIGTERM, 141 the reader of its output is gone.
LFPC_DEBUG=1 prints the traceback before that sentence. `lfpc --version` prints the version.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from io import TextIOWrapper

import tyro

import lfpc
from lfpc.cli import (
    annotate,
    asking,
    completion,
    data,
    evaluating,
    protocols,
    reporting,
    selecting,
    serving,
    story,
    training,
)
from lfpc.cli.training import Train
from lfpc.cli.typed import as_typed
from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError, LfpcError
from lfpc.options import configuration_errors, parse
from lfpc.playing.stopping import Terminated, sigterm_raises

HELP = {"-h", "--help"}
VERBS: dict[str, type[Verb]] = {
    **story.VERBS,
    **training.VERBS,
    **evaluating.VERBS,
    **reporting.VERBS,
    **asking.VERBS,
    **serving.VERBS,
    **data.VERBS,
    **selecting.VERBS,
    **annotate.VERBS,
    **protocols.VERBS,
    **completion.VERBS,
}


_MODEL_PACKAGES = ("safetensors", "tensorboard", "tokenizers", "torch", "transformers")
"""Packages that an installation for served models lacks (requirements-served.txt)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code; wrong usage leaves through SystemExit(2)."""
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # before torch: spinning threads starve each other on a busy machine
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal need not be UTF-8
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(f"lfpc {lfpc.__version__}")
        return 0
    try:
        with sigterm_raises():
            with configuration_errors():
                verb = _parse(words)
            print(verb.run(), flush=True)
    except LfpcError as error:
        return _fail(str(error), words)
    except KeyboardInterrupt:
        _fail("interrupted; the same command resumes from what is written", words)
        return 130
    except Terminated as error:
        _fail("ended by SIGTERM; the same command resumes from what is written", words)
        return int(error.code or 0)
    except ModuleNotFoundError as error:
        if error.name not in _MODEL_PACKAGES:
            raise
        return _fail(
            f"{error.name} is not installed, and this command needs it: `pip install lfpc` with "
            f"all its requirements, or use a served model (--base-url)",
            words,
        )
    except BrokenPipeError:  # the reader, such as `head`, has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    # a full disk, a folder that may not be written: with the system's own sentence
    except OSError as error:
        return _fail(
            ": ".join(str(part) for part in (error.filename, error.strerror or error) if part),
            words,
        )
    return 0


def _parse(arguments: list[str]) -> Verb:
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name == "train" and len(arguments) > 1 and not arguments[1].startswith("-"):
            return Train(
                preset=arguments[1], options=tuple(arguments[2:])
            )  # a run has its own options
        if name == "train" and len(arguments) > 1 and not HELP.intersection(arguments[1:]):
            raise ConfigError("name the preset first: lfpc train PRESET [options]")
        if name in VERBS:
            more = _presets() if name == "train" else ""
            return parse(VERBS[name], arguments[words:], prog=f"lfpc {name}", more=more)
    group = {
        name: verb
        for name, verb in VERBS.items()
        if arguments and name.startswith(f"{arguments[0]} ")
    }
    if sentence := _unknown(arguments):
        print(f"lfpc: {sentence}", file=sys.stderr)
        raise SystemExit(2)
    verbs, rest = (group, arguments[1:]) if group else (VERBS, arguments)
    return tyro.extras.subcommand_cli_from_dict(
        dict(verbs), prog="lfpc", description=lfpc.__doc__, args=rest
    )


def _presets() -> str:
    """The presets of a training run, for the help of `lfpc train`."""
    from lfpc.training.presets import PRESETS

    return "Presets:\n" + "\n".join(f"  {name}: {text}" for name, (text, _) in PRESETS.items())


def _unknown(words: Sequence[str]) -> str | None:
    """A sentence for a word that is no verb, group or verb of its group; None: it is, or is an
    option.
    """
    firsts = {name.partition(" ")[0] for name in VERBS}
    group = words[0] if words and words[0] in firsts else ""
    named = list(words[1:] if group else words)
    if not named or named[0].startswith("-"):
        return None
    inside = {name.partition(" ")[2] for name in VERBS if name.startswith(f"{group} ")}
    known = inside if group else firsts
    near = get_close_matches(named[0], sorted(known), n=1)
    hint = f"; did you mean `lfpc {f'{group} {near[0]}'.strip()}`?" if near else ""
    more = f"{group} " if group else ""
    return f"no command {f'{more}{named[0]}'!r}{hint} (`lfpc {more}--help` lists them)"


def _fail(sentence: str, words: Sequence[str]) -> int:
    if os.environ.get("LFPC_DEBUG") == "1":
        traceback.print_exc()
    print(f"lfpc: {' '.join(as_typed(sentence, words).split())}", file=sys.stderr)
    return 1
