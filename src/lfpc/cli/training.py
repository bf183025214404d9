"""Reinforcement learning. Imports stay inside `run`, see `lfpc.cli`."""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional, arg

from lfpc.cli.verb import Verb

if TYPE_CHECKING:
    from lfpc.training.config import TrainConfig
    from lfpc.training.verl.estimate import Preview


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train with reinforcement learning from a preset:
    `lfpc train PRESET --data FOLDER --init CHECKPOINT --out FOLDER`.
    """

    EXAMPLES: ClassVar = (
        "lfpc train stage1 --data data/selected --init CHECKPOINT --out runs/stage1",
        "lfpc train stage2 --data data/boxed --init runs/stage1/checkpoints/step-000080 --out "
        "runs/stage2",
        "lfpc train stage1 --engine verl --hardware node4 --dry-run",
    )

    preset: Annotated[Positional[str], arg(metavar="PRESET")]
    """Name of a preset; `lfpc train PRESET --help` lists every option of a run."""
    options: Annotated[Positional[tuple[str, ...]], arg(metavar="OPTION")] = ()
    """Options of the run."""

    def run(self) -> str:
        from lfpc.errors import ConfigError
        from lfpc.policies.bases import model_type
        from lfpc.training.options import parsed
        from lfpc.training.presets import preset

        asked = parsed(preset(self.preset), self.options, prog=f"lfpc train {self.preset}")
        launch = asked.launch
        if launch.hardware and launch.engine != "verl":
            raise ConfigError("--hardware needs --engine verl")
        if launch.stop_after is not None and not launch.stop_after > 0:
            raise ConfigError(f"--stop-after must be above 0 minutes, got {launch.stop_after:g}")
        if not launch.dry_run:
            _check_given(asked.run)
            if not (asked.run.out / "checkpoints").is_dir():  # a run that resumes has its own
                model_type(asked.run.init)
        if launch.engine == "verl":
            if launch.trackers:
                raise ConfigError(
                    "--wandb and --trackio need the local engine; for verl set its own loggers "
                    "(--cluster.verl trainer.logger=...)"
                )
            if launch.stop_after is not None:
                raise ConfigError(
                    "--stop-after needs the local engine; --engine verl stops at a step, "
                    "--cluster.stop-at"
                )
            if asked.judge.judge:
                raise ConfigError("--judge needs the local engine; leave it out")
            from lfpc.training.verl.launch import preview as verl_preview
            from lfpc.training.verl.launch import train as verl_train

            if launch.dry_run:
                return _shown(verl_preview(asked.run, asked.cluster))
            return f"checkpoint: {verl_train(asked.run, asked.cluster)} (run: {asked.run.out})"
        from lfpc.training.fitting import preview
        from lfpc.training.local import train
        from lfpc.training.state import checkpoint_folder

        if launch.dry_run:
            return _shown(preview(asked.run, asked.cluster))
        limit = math.inf if launch.stop_after is None else 60 * launch.stop_after
        with asked.judge.asked_judge(asked.run.out) as judge:
            run = replace(asked.run, judge=judge.config.model if judge else "")
            folder = train(run, judge=judge, trackers=launch.trackers, stop_after_s=limit)
        steps = asked.run.steps
        if folder != checkpoint_folder(asked.run.out, steps):
            print(f"stopped before step {steps}, as --stop-after asks; the same command resumes")
        else:
            command = f"lfpc eval HELD_OUT --checkpoint {folder} --probes own noise --out EVAL"
            print(f"evaluate it: {command}", file=sys.stderr)
        return f"checkpoint: {folder} (run: {asked.run.out})"


def _shown(found: "Preview") -> str:
    """The text of a dry run.

    Raises:
        ConfigError: the run does not fit; the text is printed.
    """
    from lfpc.errors import ConfigError

    if not found.fits:
        print(found.text)
        raise ConfigError("the run does not fit; the estimate names options that lower its memory")
    return found.text


def _check_given(run: "TrainConfig") -> None:
    """Check that data and checkpoint were given, or lie where they are by default.

    Raises:
        ConfigError: neither.
    """
    from lfpc.errors import ConfigError
    from lfpc.training.config import TrainConfig

    default = TrainConfig()
    if run.data == default.data and not run.data.exists():
        raise ConfigError("give --data, the samples folder to train on")
    if run.init == default.init and not run.init.exists():
        raise ConfigError("give --init, the checkpoint to start from")


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Write a checkpoint of adapters (`lfpc train --lora`) as a plain checkpoint."""

    EXAMPLES: ClassVar = ("lfpc merge runs/lora/checkpoints/step-000080 --out models/merged",)

    adapters: Positional[Path]
    """Folder with the adapters."""
    out: Path
    """Folder to write."""

    def run(self) -> str:
        from lfpc.policies.settings import there

        there(self.adapters)
        from lfpc.policies.qwen.merging import merge

        return f"checkpoint: {merge(self.adapters, self.out)}"


VERBS: dict[str, type[Verb]] = {
    "train": Train,
    "merge": Merge,
}
