"""Shell completion: commands with their groups, presets, options and choices, as tyro's script."""

import io
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field, make_dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Literal

import tyro
from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from lfpc.cli.verb import Verb
from lfpc.options import REGISTRY


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print a script that completes commands, presets and options with the TAB key."""

    EXAMPLES: ClassVar = (
        "lfpc completion bash > ~/.local/share/bash-completion/completions/lfpc",
        "lfpc completion zsh > ~/.zfunc/_lfpc",
        "lfpc completion fish > ~/.config/fish/completions/lfpc.fish",
    )

    shell: Annotated[Positional[Literal["bash", "zsh", "fish"]], arg(metavar="SHELL")]
    """bash, zsh or fish."""

    def run(self) -> str:
        from lfpc.cli import VERBS

        script = io.StringIO()
        with redirect_stdout(script), suppress(SystemExit):
            tyro.cli(
                OmitSubcommandPrefixes[_commands(VERBS)],
                prog="lfpc",
                args=["--tyro-write-completion", self.shell, "-"],
                registry=REGISTRY,
            )
        # a shell takes every line of a description for a candidate of its own
        lines = script.getvalue().rstrip().split("\n")
        return "\n".join(
            line.replace("\\n", " ") if line.startswith("COMPLETION_SPEC") else line
            for line in lines
        )


def _commands(verbs: dict[str, type[Verb]]) -> Any:
    """The commands as a tree of types: the groups, and the presets of `train`."""
    from lfpc.training.options import TrainOptions
    from lfpc.training.presets import PRESETS

    tree: dict[str, dict[str, Any]] = {}
    for name, verb in verbs.items():
        first, _, rest = name.partition(" ")
        tree.setdefault(first, {})[rest] = verb
    tree["train"] = dict.fromkeys(PRESETS, TrainOptions)
    return _one_of(
        {
            name: inner[""] if "" in inner else _group(name, _one_of(inner))
            for name, inner in tree.items()
        }
    )


def _one_of(parts: dict[str, Any]) -> Any:
    named = [Annotated[cls, subcommand(name)] for name, cls in parts.items()]
    return reduce(or_, named)


def _group(name: str, verbs: Any) -> type:
    return make_dataclass(name.title(), [("verb", Annotated[verbs, arg(name="")], field())])


VERBS: dict[str, type[Verb]] = {"completion": Completion}
