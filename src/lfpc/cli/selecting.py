"""Resolution selection. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from lfpc.cli.model import AnsweringModel, JudgeOptions
from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError

SAMPLING = (
    "protocol",
    "max_new_tokens",
    "temperature",
    "top_p",
    "sampling_seed",
    "extra_body",
)
"""Settings of the answering model that a selection records."""


@dataclass(frozen=True, kw_only=True)
class Select(AnsweringModel, JudgeOptions):
    """Resolution selection: choose each sample's first-view budget with the model that is going to
    be trained.
    """

    data: Positional[Path]
    """Samples folder."""
    out: Path
    """Samples folder to write; the answers are kept there, so an interrupted selection goes on."""
    answers: Path | None = None
    """Folder of the model's answers, which selections may share; None: inside the output folder."""
    ladder: tuple[int, ...] = (16384, 4096, 1024, 256)
    """Budgets in visual tokens, from the original's level downwards."""
    ratios: tuple[float, ...] = ()
    """Levels as shares of each original's own visual tokens instead, as in 1 0.25 0.0625; --ladder
    then only bounds the original."""
    never: Literal["keep", "drop"] = "keep"
    """Samples whose answer never changes."""
    wrong: Literal["keep", "drop"] = "keep"
    """Samples that are answered wrongly at the original."""
    votes: int = 1
    """Sampled answers to each question, of which the most frequent counts; needs a --temperature
    above 0."""
    every_level: bool = False
    """Ask every level, also below the first change: costs more, and gives the whole curve of
    accuracy by level."""
    batch: int = 64
    """Questions that a checkpoint in this process is asked together; a server is asked
    --concurrency at once."""

    def run(self) -> str:
        from lfpc.policies.loading import any_policy
        from lfpc.report.selection_page import selection_lines, write_selection_page
        from lfpc.samples import read_samples, write_samples
        from lfpc.select.judged import judged_rules
        from lfpc.select.ladder import RULES
        from lfpc.select.selection import SelectConfig, select

        if self.votes > 1 and self.temperature == 0:
            raise ConfigError(
                "--votes are sampled answers: give a --temperature above 0, as in 0.7"
            )
        settings, host = self.asked()
        config = SelectConfig(
            ladder=self.ladder,
            ratios=self.ratios,
            never=self.never,
            wrong=self.wrong,
            early=not self.every_level,
            model=settings.model,
            sampling={name: getattr(settings, name) for name in SAMPLING},
            votes=self.votes,
            judge=self.judge_model or self.judge or "",
        )
        samples = read_samples(self.data)
        policy = any_policy(settings, host, tools=False)
        with self.asked_judge(self.out) as judge:
            found = select(
                samples,
                policy,
                protocol=settings.chat,
                config=config,
                out=self.out,
                answers=self.answers,
                rules=RULES if judge is None else judged_rules(judge),
                batch=self.batch,
            )
        print(*selection_lines(found), sep="\n")
        written = write_samples(found.samples, self.out)
        return (
            f"samples with budgets: {written} (plots: "
            f"{write_selection_page(self.out / 'report', found)})"
        )


VERBS: dict[str, type[Verb]] = {"select": Select}
