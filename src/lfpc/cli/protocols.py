"""Protocol files. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError
from lfpc.storage.files import write_text


@dataclass(frozen=True, kw_only=True)
class Show:
    """Print a protocol as a TOML file, to change for a fine-tune and to give as --protocol FILE."""

    EXAMPLES: ClassVar = (
        "lfpc protocols show qwen2_5_vl --out mine.toml",
        "lfpc eval data/test --base-url http://127.0.0.1:8000/v1 --model NAME --protocol "
        "mine.toml --out out/mine",
    )

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Name of a protocol; docs/protocols.md lists them."""
    out: Annotated[Path | None, arg(metavar="FILE.toml")] = None
    """File to write. Default: print it."""

    def run(self) -> str:
        from lfpc.protocols.toml import starting_file

        text = starting_file(self.name)
        if self.out is None:
            return text.rstrip()
        if self.out.exists():
            raise ConfigError(f"{self.out} exists already; delete it or name another --out")
        write_text(self.out, text)
        return f"protocol file: {self.out}"


@dataclass(frozen=True, kw_only=True)
class List:
    """List the protocols by name, with the visual tokens of their crops."""

    EXAMPLES: ClassVar = ("lfpc protocols list",)

    def run(self) -> str:
        from lfpc.protocols import PROTOCOLS

        width = max(map(len, PROTOCOLS))
        return "\n".join(
            f"{name:{width}}  crops of {one.crop.min_tokens} to {one.crop.max_tokens} visual "
            f"tokens, {one.factor} pixels wide each"
            for name, one in PROTOCOLS.items()
        )


VERBS: dict[str, type[Verb]] = {"protocols list": List, "protocols show": Show}
