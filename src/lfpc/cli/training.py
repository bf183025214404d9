"""Reinforcement learning. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass

import tyro
from tyro.conf import Positional

from lfpc.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Train:
    """Reinforcement learning by a preset: `lfpc train PRESET --data FOLDER --init CHECKPOINT --out FOLDER`."""

    preset: Positional[str]
    """Row of the experiment table; `lfpc train PRESET --help` lists every option of a run."""
    options: Positional[tuple[str, ...]] = ()
    """Options of the run."""

    def run(self) -> str:
        from lfpc.train.config import TrainConfig
        from lfpc.train.local import train
        from lfpc.train.presets import preset

        config = tyro.cli(TrainConfig, default=preset(self.preset), prog=f"lfpc train {self.preset}", args=self.options)
        return f"checkpoint: {train(config)} (run: {config.out})"


VERBS: dict[str, type[Verb]] = {
    "train": Train,
}
