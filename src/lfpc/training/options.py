"""Options of `lfpc train PRESET`: the run, the engine, and the machines of the verl engine."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lfpc.errors import CheckpointError
from lfpc.evaluation.judge_options import JudgeOptions
from lfpc.options import Embedded, Group, configuration_errors, parse
from lfpc.policies.settings import checkpoint_settings
from lfpc.protocols import ProtocolFile, protocol_given, protocol_named
from lfpc.training.config import TrainConfig
from lfpc.training.trackers import TrackerName
from lfpc.training.verl.clusters import Cluster, hardware

HARDWARE_OPTION = "--hardware"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """Engine, trackers, time limit and dry run."""

    engine: Literal["local", "verl"] = "local"
    """Training engine. local: this process, one device; verl: the GPUs of one or several machines
    (docs/cluster.md)."""
    hardware: str | None = None
    """Hardware preset of the verl engine, with batch, lengths and machines: paper, node4, gpu1 or
    nodes2. Other options override it."""
    wandb: bool = False
    """Send metrics and some episodes to Weights & Biases."""
    trackio: bool = False
    """Send metrics and some episodes to trackio."""
    stop_after: float | None = None
    """Minutes after which to save and stop, for queues with a time limit; the same command resumes.
    Local engine only; for verl --cluster.stop-at names a step."""
    dry_run: bool = False
    """Print estimates of memory and time, for verl with its settings, checked by verl, and stop,
    with exit code 1 if the run does not fit. Speeds of a GPU are --cluster.gpu-tflops and
    --cluster.gpu-tbps."""

    @property
    def trackers(self) -> list[TrackerName]:
        """Names of the local engine's trackers besides TensorBoard."""
        names: tuple[TrackerName, ...] = ("wandb", "trackio")
        return [name for name in names if getattr(self, name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """One run of reinforcement learning."""

    run: Embedded[TrainConfig] = field(default_factory=TrainConfig)
    launch: Group[LaunchOptions] = field(default_factory=LaunchOptions)
    cluster: Cluster = field(default_factory=Cluster)
    """Machines of the verl engine."""
    judge: Group[JudgeOptions] = field(default_factory=JudgeOptions)


def parsed(config: TrainConfig, words: Sequence[str], *, prog: str) -> TrainOptions:
    """The options in `words`, on top of the run `config`.

    Raises:
        ConfigError: unknown hardware, or an invalid value.
    """
    config = _for_checkpoint(config, words)
    name = _value(words, HARDWARE_OPTION)
    cluster = Cluster()
    if name is not None:
        config, cluster = hardware(name, config)
    launch = LaunchOptions(hardware=name)
    default = TrainOptions(run=config, cluster=cluster, launch=launch)
    with configuration_errors():
        return parse(TrainOptions, words, prog=prog, default=default)


def _for_checkpoint(config: TrainConfig, words: Sequence[str]) -> TrainConfig:
    """The run with the protocol in `words`, else that of the checkpoint in `words`, and the
    protocol's crop rules if it is another than the run's.
    """
    word = _value(words, "--protocol")
    given = protocol_given(word) if word else _protocol_of(_value(words, "--init"))
    if given is None or given == config.protocol:
        return config
    return replace(config, protocol=given, crop=protocol_named(given).crop)


def _protocol_of(init: str | None) -> str | ProtocolFile | None:
    """The protocol of a checkpoint; None: it is not there, which only a dry run may ignore."""
    if init is None:
        return None
    try:
        return checkpoint_settings(Path(init)).protocol
    except CheckpointError:
        if Path(init).exists():
            raise
        return None


def _value(words: Sequence[str], option: str) -> str | None:
    """The value in `words` of an option that sets the defaults of others."""
    for word, following in zip(words, (*words, None)[1:], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None
