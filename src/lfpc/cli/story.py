"""The paper in miniature: the demo, and the miniature world behind it. Imports stay inside `run`,
see `lfpc.cli`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError
from lfpc.mini.config import DemoConfig, PretrainConfig
from lfpc.options import Embedded


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The paper in miniature: data, resolution selection, baseline, Stage I and II, evaluation,
    probes, one page.
    """

    config: Embedded[DemoConfig] = field(default_factory=DemoConfig)

    def run(self) -> str:
        from lfpc.mini.demo import TABLE_FILE, demo

        page = demo(self.config)
        out = self.config.out
        print((out / TABLE_FILE).read_text(encoding="utf-8"))
        return f"open {page} (figures: {out / 'results.json'})"


@dataclass(frozen=True, kw_only=True)
class MiniScenes:
    """Write miniature scenes as an ordinary samples folder."""

    out: Positional[Path]
    """Samples folder to write."""
    split: Literal["train", "hard", "validation", "test", "hard-test", "transfer"] = "train"
    """Which scenes; splits never share one."""
    count: int = 100
    """How many samples."""

    def run(self) -> str:
        from lfpc.mini.folders import write_split

        return f"{len(write_split(self.out, self.split, self.count))} samples: {self.out}"


@dataclass(frozen=True, kw_only=True)
class MiniPretrain:
    """Train the miniature's base checkpoint from nothing (about an hour on two cores with two
    workers; an interrupted run goes on).
    """

    config: Embedded[PretrainConfig] = field(default_factory=PretrainConfig)

    def run(self) -> str:
        try:
            from lfpc.mini.pretrain import pretrain
        except ModuleNotFoundError as error:
            if error.name != "lfpc.mini.pretrain":
                raise
            raise ConfigError(
                "the recipe of the base checkpoint is in the repository only; run this in a clone "
                "of it"
            ) from None

        return f"checkpoint: {pretrain(self.config)}"


@dataclass(frozen=True, kw_only=True)
class MiniMeasure:
    """What a miniature checkpoint can do: reading, pointing, calling, and how much it depends on
    its crops.
    """

    checkpoint: Path | None = None
    """Checkpoint. Default: the base in the package."""
    questions: int = 200
    """Scenes per figure."""
    split: Literal["validation", "test", "hard-test", "transfer"] = "validation"
    """Scenes that are asked about."""

    def run(self) -> str:
        from lfpc.mini.abilities import measure
        from lfpc.mini.demo import base_checkpoint

        return measure(self.checkpoint or base_checkpoint(), self.questions, split=self.split)


VERBS: dict[str, type[Verb]] = {
    "demo": Demo,
    "mini scenes": MiniScenes,
    "mini pretrain": MiniPretrain,
    "mini measure": MiniMeasure,
}
