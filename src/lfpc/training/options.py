"""What `lfpc train PRESET` can be told: the run, the engine, and the machines of an engine that has
several.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from lfpc.training.config import TrainConfig
from lfpc.training.trackers import TrackerName
from lfpc.training.verl.clusters import Cluster, hardware

HARDWARE_OPTION = "--hardware"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """One run of reinforcement learning."""

    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    engine: Literal["local", "verl"] = "local"
    """local: this process, one device. verl: the GPUs of one or several machines
    (docs/cluster.md)."""
    hardware: str | None = None
    """Preset for the verl engine: batch, lengths and machines for paper, node4, gpu1 or nodes2;
    other options change it."""
    cluster: Cluster = field(default_factory=Cluster)
    """Machines of the verl engine."""
    wandb: bool = False
    """Show numbers and a few episodes in Weights & Biases too."""
    trackio: bool = False
    """Show them in trackio too."""
    dry_run: bool = False
    """With the verl engine: show what would be run, have verl check it, and estimate memory and
    time."""

    @property
    def trackers(self) -> list[TrackerName]:
        """Where the local engine's numbers go beside the run folder."""
        names: tuple[TrackerName, ...] = ("wandb", "trackio")
        return [name for name in names if getattr(self, name)]


def parsed(config: TrainConfig, words: Sequence[str], *, prog: str) -> TrainOptions:
    """The options in `words`, on top of the run `config`.

    Raises:
        ConfigError: unknown hardware, or a value that the run or the cluster does not allow.
    """
    name = _hardware(words)
    cluster = Cluster()
    if name is not None:
        config, cluster = hardware(name, config)
    return tyro.cli(
        TrainOptions,
        default=TrainOptions(run=config, cluster=cluster, hardware=name),
        prog=prog,
        args=words,
    )


def _hardware(words: Sequence[str]) -> str | None:
    """The preset named in `words`; it is what the other options are on top of, so it has to be
    known before they are read.
    """
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == HARDWARE_OPTION:
            return following
        if word.startswith(f"{HARDWARE_OPTION}="):
            return word.partition("=")[2]
    return None
