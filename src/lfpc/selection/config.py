"""Configuration of resolution selection. Torch-free, and read by the command line."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from lfpc.errors import ConfigError
from lfpc.options import NotAnOption
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.storage.typed import Changeable


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersConfig:
    """Configuration of a folder of answers, which selections with the same configuration may
    share.
    """

    model: Changeable[str]
    """Checkpoint folder, or name of a served model."""
    protocol: str | Mapping[str, Any]
    """Protocol of the model family: its name, or the content of a protocol file."""
    sampling: Sampling
    """Sampling of its replies."""
    votes: int
    """Answers per question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectConfig:
    """Options of resolution selection, all of which the paper leaves open."""

    ladder: tuple[int, ...] = (16384, 4096, 1024, 256)
    """Budgets in visual tokens, largest first. The first is the maximum for the original."""
    ratios: tuple[float, ...] = ()
    """Levels as falling shares of each original's visual tokens, such as 1 0.25 0.0625, in place of
    the ladder's budgets. The ladder's first budget still bounds the original."""
    never: Literal["keep", "drop"] = "keep"
    """Samples whose answer never changes. keep: at the lowest level; drop: leave them out."""
    wrong: Literal["keep", "drop"] = "keep"
    """Samples answered wrongly at the original. keep: treat them like the others; drop: leave them
    out."""
    every_level: bool = False
    """Ask every level, also below the first change. Costs more, and measures accuracy at every
    level."""
    votes: int = 1
    """Sampled answers per question, of which the most frequent counts. More than 1 needs
    --temperature above 0."""
    model: NotAnOption[Changeable[str]] = ""
    """Checkpoint folder, or name of a served model."""
    protocol: NotAnOption[str | Mapping[str, Any]] = ""
    """Protocol of the model family: its name, or the content of a protocol file."""
    sampling: NotAnOption[Sampling] = GREEDY
    """Sampling of its replies."""
    judge: NotAnOption[str] = ""
    """Model that compares free answers; empty: rules alone."""

    def __post_init__(self) -> None:
        if (
            len(self.ladder) < 2
            or any(b <= a for b, a in pairwise(self.ladder))
            or self.ladder[-1] < 1
        ):
            raise ConfigError(
                f"`ladder` must be at least two falling positive budgets, got {self.ladder}"
            )
        falling = (
            all(b > a for b, a in pairwise(self.ratios)) and 0 < self.ratios[-1] < 1
            if self.ratios
            else True
        )
        if not falling or (self.ratios and self.ratios[0] != 1):
            raise ConfigError(
                f"`ratios` must be at least two numbers that fall from 1 to above 0, got "
                f"{self.ratios}"
            )
        if self.votes < 1:
            raise ConfigError(f"`votes` must be at least 1, got {self.votes}")

    @property
    def levels(self) -> tuple[float, ...]:
        """Names of the levels: their budgets, or their ratios."""
        return self.ratios or self.ladder

    @property
    def answers(self) -> AnswersConfig:
        """Configuration of the folder of answers."""
        return AnswersConfig(
            model=self.model, protocol=self.protocol, sampling=self.sampling, votes=self.votes
        )
