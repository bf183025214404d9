"""Parts and filters of a mixture of training sets. Torch-free, and read by the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from lfpc.errors import ConfigError
from lfpc.options import pairs, word_option

MAX_DISTANCE = 18
"""Bits of 144 by which hashes of copies may differ. Unrelated pictures differ by about 72, copies
by 0 to 12."""


@dataclass(frozen=True, slots=True)
class MixPart:
    """One training set of a mixture."""

    name: str
    """Name of the samples folder."""
    count: int | None
    """Number of samples to draw; None: all that pass the filters."""


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
            raise ConfigError(f"--parts {name}={count}: COUNT must be a number above 0, or all")
        parts.append(MixPart(name, None if count == "all" else int(count)))
    return tuple(parts)


def _words_of(parts: Sequence[MixPart]) -> list[str]:
    return [f"{part.name}={'all' if part.count is None else part.count}" for part in parts]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig:
    """Parts and filters of a mixture."""

    parts: Annotated[
        tuple[MixPart, ...], word_option(parts_named, _words_of, metavar="NAME=COUNT")
    ] = ()
    """Parts in place of the preset's: NAME=COUNT or NAME=all."""
    min_tokens: int = 64
    """Minimum visual tokens of an original; smaller pictures leave little to reduce."""
    max_distance: int = MAX_DISTANCE
    """Maximum differing bits, of 144, between the hashes of two copies of a picture."""
    per_picture: int | None = None
    """Maximum number of questions per picture. Default: no limit."""
    seed: int = 0
    """Seed of the draw."""
