"""The paper in miniature: the demo, its scenes and its base checkpoint. Imports stay inside `run`,
see `lfpc.cli`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError
from lfpc.mini.config import DemoConfig, PretrainConfig, StudyConfig
from lfpc.options import Embedded

SplitName = Literal[
    "train",
    "hard",
    "validation",
    "test",
    "hard-test",
    "transfer",
    "wide",
    "wide-hard",
    "wide-validation",
    "wide-test",
    "wide-large",
]


def _check_checkpoint(checkpoint: Path | None) -> None:
    """Raise a CheckpointError before anything is written, if a given one is not there."""
    from lfpc.policies.bases import model_type

    if checkpoint is not None:
        model_type(checkpoint)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Run the paper in miniature: data, resolution selection, baseline, Stage I and II, evaluation,
    probes, one page.
    """

    EXAMPLES: ClassVar = (
        "lfpc demo --out out/demo",
        "lfpc demo --base out/neutral/checkpoint --out out/neutral-demo",
    )

    config: Embedded[DemoConfig] = field(default_factory=DemoConfig)

    def run(self) -> str:
        _check_checkpoint(self.config.base)
        from lfpc.evaluation.incomplete import check_complete
        from lfpc.evaluation.stored import read_results
        from lfpc.mini.demo import TABLE_FILE, demo

        page = demo(self.config)
        out = self.config.out
        print((out / TABLE_FILE).read_text(encoding="utf-8"))
        check_complete(out, read_results(out)["incomplete"])
        return f"open {page} (figures: {out / 'results.json'})"


@dataclass(frozen=True, kw_only=True)
class MiniStudy:
    """Test the method's claims against controls in miniature, over several training seeds: about
    two hours on two cores for the group claims, more for the others. An interrupted study can
    resume.
    """

    config: Embedded[StudyConfig] = field(default_factory=StudyConfig)

    def run(self) -> str:
        _check_checkpoint(self.config.base)
        from lfpc.mini.study import study

        page = study(self.config)
        return (
            f"comparisons: {self.config.out / 'study.md'}\nopen {page} "
            f"(figures: {self.config.out / 'results.json'})"
        )


@dataclass(frozen=True, kw_only=True)
class MiniScenes:
    """Write miniature scenes as an ordinary samples folder."""

    out: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder to write."""
    split: Annotated[SplitName, arg(metavar="SPLIT")] = "train"
    """Split of the scenes: train, hard, validation, test, hard-test, transfer; wide, wide-hard,
    wide-validation, wide-test, wide-large. No two share a scene."""
    count: int = 100
    """Number of samples."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"--count must be at least 1, got {self.count}")

    def run(self) -> str:
        from lfpc.mini.folders import write_split

        return f"{len(write_split(self.out, self.split, self.count))} samples: {self.out}"


@dataclass(frozen=True, kw_only=True)
class MiniPretrain:
    """Train the miniature's base checkpoint from fresh weights: about an hour on two cores with two
    workers. An interrupted run can resume.
    """

    config: Embedded[PretrainConfig] = field(default_factory=PretrainConfig)

    def run(self) -> str:
        _check_checkpoint(self.config.init)
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
    """Measure a miniature checkpoint: reading, localisation, tool calls and crop dependence."""

    checkpoint: Path | None = None
    """Checkpoint. Default: the base checkpoint in the package."""
    questions: int = 200
    """Scenes per figure."""
    split: Annotated[SplitName, arg(metavar="SPLIT")] = "wide-validation"
    """Split of the scenes, as in `lfpc mini scenes`."""

    def run(self) -> str:
        _check_checkpoint(self.checkpoint)
        from lfpc.mini.abilities import measure
        from lfpc.mini.folders import base_checkpoint

        return measure(self.checkpoint or base_checkpoint(), self.questions, split=self.split)


VERBS: dict[str, type[Verb]] = {
    "demo": Demo,
    "mini study": MiniStudy,
    "mini scenes": MiniScenes,
    "mini pretrain": MiniPretrain,
    "mini measure": MiniMeasure,
}
