"""Samples folders: checks, where published files are, resolution selection. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from lfpc.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """Read every row of a samples folder and open every picture; one line per problem."""

    folder: Positional[Path]
    """Samples folder: samples.jsonl beside its pictures."""

    def run(self) -> str:
        from lfpc.data.check import check_samples
        from lfpc.errors import SampleError

        rows = wrong = 0
        for problem in check_samples(self.folder):
            rows += 1
            if problem:
                wrong += 1
                print(problem)
        if wrong or not rows:
            raise SampleError(f"{self.folder}: {wrong} of {rows} samples cannot be played")
        return f"{self.folder}: {rows} samples, all can be played"


@dataclass(frozen=True, kw_only=True)
class FetchInstructions:
    """Print where a person gets the files of a benchmark. Nothing is downloaded."""

    task: Positional[str]
    """Name of the benchmark; any other word lists the known ones."""

    def run(self) -> str:
        from lfpc.evaluate.benchmarks import fetch_instructions

        return fetch_instructions(self.task)


@dataclass(frozen=True, kw_only=True)
class Select:
    """Resolution selection: choose each sample's first-view budget with the model that is going to be trained."""

    data: Positional[Path]
    """Samples folder."""
    checkpoint: Path
    """Model that answers."""
    out: Path
    """Samples folder to write; the answers are kept there, so an interrupted selection goes on."""
    ladder: tuple[int, ...] = (16384, 4096, 1024, 256)
    """Budgets in visual tokens, from the original's level downwards."""
    never: Literal["keep", "drop"] = "keep"
    """Samples whose answer never changes."""
    wrong: Literal["keep", "drop"] = "keep"
    """Samples that are answered wrongly at the original."""
    max_new_tokens: int = 128
    """Tokens a reply may have."""

    def run(self) -> str:
        from lfpc.data.select import SelectConfig, select
        from lfpc.policies.checkpoint import load_checkpoint
        from lfpc.policies.transformers import TransformersPolicy
        from lfpc.protocols import PROTOCOLS
        from lfpc.samples import read_samples, write_samples

        samples, protocol = read_samples(self.data), PROTOCOLS["qwen2_5_vl"]
        model, tokenizer = load_checkpoint(self.checkpoint)
        policy = TransformersPolicy(model, tokenizer, protocol, temperature=0.0, max_new_tokens=self.max_new_tokens, tools=False)
        config = SelectConfig(ladder=self.ladder, never=self.never, wrong=self.wrong, model=str(self.checkpoint))
        found = select(samples, policy, protocol=protocol, config=config, out=self.out)
        for level, count in found.levels.items():
            print(f"{level:>7} visual tokens: {count:>6} samples {'#' * round(50 * count / max(1, len(samples)))}")
        print(f"  never changed: {found.never:>6} samples; wrong at the original: {found.wrong}; dropped: {found.dropped}")
        return f"samples with budgets: {write_samples(found.samples, self.out)}"


VERBS: dict[str, type[Verb]] = {
    "select": Select,
    "data check": DataCheck,
    "data fetch-instructions": FetchInstructions,
}
