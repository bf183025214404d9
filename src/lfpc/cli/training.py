"""Reinforcement learning. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from lfpc.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train with reinforcement learning from a preset:
    `lfpc train PRESET --data FOLDER --init CHECKPOINT --out FOLDER`.
    """

    preset: Positional[str]
    """Name of a preset; `lfpc train PRESET --help` lists every option of a run."""
    options: Positional[tuple[str, ...]] = ()
    """Options of the run."""

    def run(self) -> str:
        from lfpc.errors import ConfigError
        from lfpc.training.options import parsed
        from lfpc.training.presets import preset

        asked = parsed(preset(self.preset), self.options, prog=f"lfpc train {self.preset}")
        if asked.engine == "verl":
            from lfpc.training.verl import launch

            if asked.trackers:
                raise ConfigError(
                    "--wandb and --trackio need the local engine; for verl set its own loggers "
                    "(--cluster.verl trainer.logger=...)"
                )
            if asked.dry_run:
                return launch.preview(asked.run, asked.cluster)
            return f"checkpoint: {launch.train(asked.run, asked.cluster)} (run: {asked.run.out})"
        if asked.hardware:
            raise ConfigError("--hardware needs --engine verl")
        from lfpc.training.local import preview, train

        if asked.dry_run:
            return preview(asked.run, asked.cluster)

        return f"checkpoint: {train(asked.run, trackers=asked.trackers)} (run: {asked.run.out})"


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Write a checkpoint of adapters (`lfpc train --lora`) as a plain checkpoint."""

    adapters: Positional[Path]
    """Folder with the adapters."""
    out: Path
    """Folder to write."""

    def run(self) -> str:
        from lfpc.policies.qwen.merging import merge

        return f"checkpoint: {merge(self.adapters, self.out)}"


VERBS: dict[str, type[Verb]] = {
    "train": Train,
    "merge": Merge,
}
