"""Resolution selection. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from lfpc.cli.model import AnsweringModel
from lfpc.cli.typed import as_typed
from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError, Incomplete
from lfpc.evaluation.judge_options import JudgeOptions
from lfpc.options import Embedded, Group
from lfpc.selection.config import SelectConfig

SAMPLING = (
    "protocol",
    "max_new_tokens",
    "temperature",
    "top_p",
    "sampling_seed",
    "extra_body",
)
"""Options of the model that a selection records."""


@dataclass(frozen=True, kw_only=True)
class Select(AnsweringModel):
    """Resolution selection: choose each sample's first-view budget with the model to be trained."""

    EXAMPLES: ClassVar = (
        "lfpc select data/train --checkpoint CHECKPOINT --out data/selected",
        "lfpc select data/train --base-url http://127.0.0.1:8000/v1 --model NAME --ladder 16384 "
        "4096 1024 256 --out data/selected",
    )

    data: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder."""
    out: Path
    """Samples folder to write, with the model's answers, so an interrupted selection can resume."""
    answers: Path | None = None
    """Folder of the model's answers, which selections may share. Default: inside the output
    folder."""
    config: Embedded[SelectConfig] = field(default_factory=SelectConfig)
    judge: Group[JudgeOptions] = field(default_factory=JudgeOptions)
    batch: int = 64
    """Questions per batch of a checkpoint in this process; a server gets --concurrency at once."""
    processes: int | None = None
    """Worker processes that ask a server; see `lfpc eval --help`. Default: by the size of the
    pictures, at most one per core."""

    def run(self) -> str:
        from lfpc.playing.processes import check_processes
        from lfpc.policies.identity import model_identity
        from lfpc.policies.loading import any_policy
        from lfpc.report.selection_page import selection_lines, write_selection_page
        from lfpc.samples import read_samples, write_samples
        from lfpc.selection.judged import judged_rules
        from lfpc.selection.ladder import RULES
        from lfpc.selection.run import select
        from lfpc.storage.files import FolderLock
        from lfpc.storage.typed import plain

        if self.config.votes > 1 and self.sampling.temperature == 0:
            raise ConfigError(
                "--votes above 1 need sampled answers: set --temperature above 0, for example 0.7"
            )
        model, backend = self.asked()
        check_processes(self.processes, backend)
        config = replace(
            self.config,
            model=model.model,
            protocol=plain(model.protocol),
            sampling=replace(self.sampling, max_new_tokens=model.max_new_tokens),
            judge=self.judge.judge_model or self.judge.judge or "",
        )
        samples = read_samples(self.data)
        with FolderLock(self.out), self.judge.asked_judge(self.out) as judge:
            policy = any_policy(model, backend, tools=False)
            found = select(
                samples,
                policy,
                protocol=model.chat,
                config=config,
                out=self.out,
                inputs=model_identity(model.model, backend),
                answers=self.answers,
                rules=RULES if judge is None else judged_rules(judge),
                batch=self.batch,
                processes=self.processes,
            )
            written = write_samples(found.samples, self.out, replace=False)
        print(as_typed("\n".join(selection_lines(found))))
        page = write_selection_page(self.out / "report", found)
        if found.failed:
            first = next(iter(found.failed.values()))
            raise Incomplete(
                f"{written}: {len(found.failed)} of {len(samples)} samples failed and are left "
                f"out, the first with: {first}; run the command again to retry them"
            )
        return f"samples with budgets: {written} (plots: {page})"


VERBS: dict[str, type[Verb]] = {"select": Select}
