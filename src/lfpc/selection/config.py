"""What resolution selection tries, and what it keeps. Torch-free, and read by the command line."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lfpc.errors import ConfigError
from lfpc.options import NotAnOption
from lfpc.policies.sampling import GREEDY, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersConfig:
    """Whose answers a folder of answers holds. Selections that agree in this may share one."""

    model: str
    """Checkpoint or served model."""
    protocol: str
    """What the model reads and writes."""
    sampling: Sampling
    """How its replies are sampled."""
    votes: int
    """Answers to each question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectConfig:
    """Options of resolution selection. The paper leaves all of them open."""

    ladder: tuple[int, ...] = (16384, 4096, 1024, 256)
    """Budgets in visual tokens, largest first: the first is the most that the original is shown
    at."""
    ratios: tuple[float, ...] = ()
    """Levels as falling shares of each original's own visual tokens, as in 1 0.25 0.0625, in place
    of the ladder's; the ladder's first budget still bounds the original."""
    never: Literal["keep", "drop"] = "keep"
    """Samples whose answer never changes: keep them at the lowest level, or drop them."""
    wrong: Literal["keep", "drop"] = "keep"
    """Samples answered wrongly at the original: treat them like the others, or drop them."""
    every_level: bool = False
    """Ask every level, also below the first change: costs more, and gives the whole curve of
    accuracy by level."""
    votes: int = 1
    """Sampled answers to each question, of which the most frequent counts; several need a
    temperature above 0."""
    model: NotAnOption[str] = ""
    """Checkpoint or served model that answers."""
    protocol: NotAnOption[str] = ""
    """What the model reads and writes."""
    sampling: NotAnOption[Sampling] = GREEDY
    """How its replies are sampled."""
    judge: NotAnOption[str] = ""
    """Model that decides whether free answers mean the same; empty: rules alone."""

    def __post_init__(self) -> None:
        if (
            len(self.ladder) < 2
            or any(b <= a for b, a in pairwise(self.ladder))
            or self.ladder[-1] < 1
        ):
            raise ConfigError(
                f"the ladder must hold at least two falling positive budgets, got {self.ladder}"
            )
        falling = (
            all(b > a for b, a in pairwise(self.ratios)) and 0 < self.ratios[-1] < 1
            if self.ratios
            else True
        )
        if not falling or (self.ratios and self.ratios[0] != 1):
            raise ConfigError(
                f"ratios must fall from 1 to a number above 0, at least two of them, got "
                f"{self.ratios}"
            )
        if self.votes < 1:
            raise ConfigError(f"votes must be at least 1, got {self.votes}")

    @property
    def levels(self) -> tuple[float, ...]:
        """What the levels are called: their budgets, or their ratios."""
        return self.ratios or self.ladder

    @property
    def answers(self) -> AnswersConfig:
        """Whose answers these are."""
        return AnswersConfig(
            model=self.model, protocol=self.protocol, sampling=self.sampling, votes=self.votes
        )
