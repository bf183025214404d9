"""Reinforcement learning. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass
from typing import Annotated

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
        from lfpc.train.trackers import TrackerName

        @dataclass(frozen=True, kw_only=True)
        class Options:
            """One run of reinforcement learning."""

            run: Annotated[TrainConfig, tyro.conf.arg(name="")] = preset(self.preset)  # noqa: RUF009 - a frozen dataclass
            wandb: bool = False
            """Show numbers and a few episodes in Weights & Biases too."""
            trackio: bool = False
            """Show them in trackio too."""

            @property
            def trackers(self) -> list[TrackerName]:
                names: tuple[TrackerName, ...] = ("wandb", "trackio")
                return [name for name in names if getattr(self, name)]

        asked = tyro.cli(Options, prog=f"lfpc train {self.preset}", args=self.options)
        return f"checkpoint: {train(asked.run, trackers=asked.trackers)} (run: {asked.run.out})"


VERBS: dict[str, type[Verb]] = {
    "train": Train,
}
