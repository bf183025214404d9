"""Options of the judge of free answers, for every command that has one. Without the client's
imports.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from lfpc.errors import ConfigError

if TYPE_CHECKING:
    from lfpc.evaluation.judge import Judge


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Options of the judge of free answers."""

    judge: Annotated[str | None, arg(metavar="URL")] = None
    """Address of the judge's OpenAI-compatible server, ending in /v1. Default: rules alone."""
    judge_model: Annotated[str | None, arg(metavar="NAME")] = None
    """Name of the judge on that server. Default: its only model."""
    judge_cache: Path | None = None
    """File for the judge's verdicts, which runs may share. Default: judge.jsonl in the output
    folder."""
    judge_concurrency: int = 8
    """Concurrent requests to the judge."""
    judge_max_new_tokens: int = 1024
    """Token limit of the judge's reply."""

    def asked_judge(self, folder: Path) -> "AbstractContextManager[Judge | None]":
        """The judge as a context manager; None inside the block without --judge."""
        from lfpc.evaluation.judge import Judge, JudgeConfig, only_model

        if self.judge_model and not self.judge:
            raise ConfigError("--judge-model needs --judge, the address of its server")
        if not self.judge:
            return nullcontext()
        model = self.judge_model or only_model(self.judge)
        cache = self.judge_cache or folder / "judge.jsonl"
        return Judge(
            JudgeConfig(
                url=self.judge,
                model=model,
                cache=cache,
                concurrency=self.judge_concurrency,
                max_new_tokens=self.judge_max_new_tokens,
            )
        )
