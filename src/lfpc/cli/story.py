"""The paper in miniature: the demo, and the miniature world behind it. Imports stay inside `run`,
see `lfpc.cli`.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The paper in miniature: data, resolution selection, baseline, Stage I and II, evaluation,
    probes, one page.
    """

    out: Path = Path("out/demo")
    """Folder for everything; a demo that is there is continued."""
    seeds: int = 1
    """Training runs per arm; with several, also 500 questions and the ablations."""
    questions: int | None = None
    """Held-out questions; None: 160 with one seed, 500 with several."""
    split: Literal["test", "hard-test", "transfer"] = "hard-test"
    """Scenes that the questions are about: those of `hard-test` have smaller marks and more
    distractors than Stage I's."""
    ablations: bool | None = None
    """Whether the paper's ablations run too; None: with several seeds."""
    base: Path | None = None
    """Checkpoint to start from; None: the one in the package."""
    steps: int = 80
    """Steps of the baseline and of Stage I."""
    stage2_steps: int = 80
    """Further steps of Stage II."""
    train_samples: int = 320
    """Questions that the baseline and Stage I learn from."""
    hard_samples: int = 768
    """Boxed hard questions that Stage II learns from."""
    ladder: tuple[int, ...] = (256, 36, 25)
    """Levels of resolution selection, in visual tokens."""
    learning_rate: float = 3e-4
    """Of every run, at its highest."""
    processes: int | None = None
    """Runs side by side; None: one per core, at most 4."""

    def run(self) -> str:
        from lfpc.mini.demo import TABLE_FILE, DemoConfig, demo

        given = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        page = demo(DemoConfig(**given))
        print((self.out / TABLE_FILE).read_text(encoding="utf-8"))
        return f"open {page} (figures: {self.out / 'results.json'})"


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

    out: Path = Path("out/mini-base")
    """Folder of the training state and curves, and at the end of `checkpoint/`."""
    init: Path | None = None
    """Checkpoint whose weights a new run starts from; None: fresh ones."""
    dense_steps: int | None = None
    """Steps of the vision phase; None: the recipe's."""
    dialogue_steps: int | None = None
    """Steps of the language phase; None: the recipe's."""
    settle_steps: int | None = None
    """Steps of the last phase, which teaches not to trust crops; None: the recipe's."""
    hit: float | None = None
    """Share of two-picture dialogues whose crop is about the right object; None: the recipe's."""
    contradict: float | None = None
    """Share, in the last phase, whose crop shows a lookalike from another picture; None: the
    recipe's."""
    unreadable: float | None = None
    """Share whose global picture is too small to read; None: the recipe's."""
    learning_rate: float | None = None
    """Peak of a phase; None: the recipe's."""
    settle_rate: float | None = None
    """The last phase's share of it; None: the recipe's."""
    workers: int = 1
    """Processes that train the same weights, a thread each: about as many times faster, no longer
    repeated bit for bit."""
    seed: int = 0
    """Of weights and batches."""

    def run(self) -> str:
        try:
            from lfpc.mini.pretrain import PretrainConfig, pretrain
        except ModuleNotFoundError as error:
            if error.name != "lfpc.mini.pretrain":
                raise
            raise ConfigError(
                "the recipe of the base checkpoint is in the repository only; run this in a clone "
                "of it"
            ) from None

        given = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return f"checkpoint: {pretrain(PretrainConfig(**given))}"


@dataclass(frozen=True, kw_only=True)
class MiniMeasure:
    """What a miniature checkpoint can do: reading, pointing, calling, and how much it depends on
    its crops.
    """

    checkpoint: Path | None = None
    """Checkpoint; None: the base in the package."""
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
