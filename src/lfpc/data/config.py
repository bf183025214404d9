"""Parts and filters of a mixture of training sets. Torch-free, and read by the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from lfpc.errors import ConfigError
from lfpc.options import pairs, word_option

MAX_DISTANCE = 18
"""Of 144 bits; unrelated pictures differ in about 72, copies in none to 12."""


@dataclass(frozen=True, slots=True)
class MixPart:
    """One training set of a mixture."""

    name: str
    """Name of its samples folder."""
    count: int | None
    """Samples that are drawn from it; None: all that are left."""


PRESETS: dict[str, tuple[MixPart, ...]] = {
    "stage1": (
        MixPart("pixel-reasoner", 2700),
        MixPart("chain-of-focus", 2100),
        MixPart("thinklite-vl", None),
    ),
}
"""Name -> parts."""


def parts_named(words: Sequence[str]) -> tuple[MixPart, ...]:
    """Parts from NAME=COUNT, where COUNT may be "all".

    Raises:
        ConfigError: a word has another form, or a count is neither a number above 0 nor "all".
    """
    parts: list[MixPart] = []
    for name, count in pairs("--parts", words, "NAME=COUNT or NAME=all").items():
        if count != "all" and not (count.isdecimal() and int(count) > 0):
            raise ConfigError(f"--parts {name}={count}: a count is a number above 0, or all")
        parts.append(MixPart(name, None if count == "all" else int(count)))
    return tuple(parts)


def _words_of(parts: Sequence[MixPart]) -> list[str]:
    return [f"{part.name}={'all' if part.count is None else part.count}" for part in parts]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig:
    """What is mixed, and what is left out."""

    parts: Annotated[
        tuple[MixPart, ...], word_option(parts_named, _words_of, metavar="NAME=COUNT")
    ] = ()
    """Parts in place of the preset's: NAME=COUNT or NAME=all."""
    min_tokens: int = 64
    """Least visual tokens of an original: a smaller picture cannot be reduced by much."""
    max_distance: int = MAX_DISTANCE
    """Bits of 144 in which the looks of two pictures may differ to be taken for the same."""
    per_picture: int | None = None
    """Most questions about one picture. Default: any number."""
    seed: int = 0
    """Seed of the drawing."""
