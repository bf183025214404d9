"""Where a run's numbers and a few of its episodes go beside the run folder: TensorBoard always,
wandb and trackio if asked for.

A tracker is a view of the run: `metrics.jsonl` and `episodes.jsonl` hold everything, so a run may
go on with other trackers.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol
from zlib import crc32

import numpy as np

from lfpc.episode import Episode
from lfpc.errors import ConfigError
from lfpc.storage.typed import plain
from lfpc.training.config import TrainConfig
from lfpc.training.statistics import Numbers

TrackerName = Literal["wandb", "trackio"]
PROJECT = "lfpc"
"""What the runs are filed under."""
LONGEST_TEXT = 500
"""Characters that are shown with a picture."""


class Tracker(Protocol):
    """Somewhere numbers and episodes are shown while a run goes on."""

    def numbers(self, numbers: Numbers, step: int) -> None:
        """Show a step's numbers; None is no number."""
        ...

    def episode(self, episode: Episode, step: int) -> None:
        """Show an episode: each picture the policy saw, with what it then said."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


def said_of_pictures(episode: Episode) -> list[tuple[Any, str]]:
    """Each picture that the policy saw (a PIL image) and what it said next; the first one with the
    question before it.
    """
    texts = [f"{episode.sample.question} \u2192"]
    pictures = [episode.first_view.image]
    for turn in episode.turns:
        texts[-1] = f"{texts[-1]} {turn.reply.text}".strip()
        if turn.view is not None:
            pictures.append(turn.view.image)
            texts.append("")
    return [(picture, text[:LONGEST_TEXT]) for picture, text in zip(pictures, texts, strict=True)]


class TensorBoard:
    """Event files in the run folder; steps after `done` are written anew."""

    def __init__(self, path: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(path / "tensorboard"), purge_step=done + 1)

    def numbers(self, numbers: Numbers, step: int) -> None:
        for name, value in known(numbers).items():
            self._writer.add_scalar(name, value, step)

    def episode(self, episode: Episode, step: int) -> None:
        for n, (picture, text) in enumerate(said_of_pictures(episode)):
            self._writer.add_image(f"episode/{n}", np.asarray(picture), step, dataformats="HWC")
            self._writer.add_text(f"episode/{n}", text.replace("<", "&lt;"), step)

    def close(self) -> None:
        self._writer.close()


class Hosted:
    """wandb, or trackio, which is used in the same way. Where it sends its data is its own
    configuration.
    """

    def __init__(self, name: TrackerName, config: TrainConfig) -> None:
        try:
            self._module: Any = import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"--{name} needs the package {name}, which cannot be imported ({error}): "
                f"pip install {name}"
            ) from error
        path = config.out.resolve()
        given: dict[str, Any] = {"project": PROJECT, "config": plain(config), "resume": "allow"}
        if name == "wandb":
            given |= {"name": path.name, "id": _run_id(path), "dir": str(path)}
        else:
            given |= {"name": _run_id(path)}  # trackio resumes a run by its name
        self._module.init(**given)

    def numbers(self, numbers: Numbers, step: int) -> None:
        self._module.log(known(numbers), step=step)

    def episode(self, episode: Episode, step: int) -> None:
        shown = {
            f"episode/{n}": self._module.Image(picture, caption=text)
            for n, (picture, text) in enumerate(said_of_pictures(episode))
        }
        self._module.log(shown, step=step)

    def close(self) -> None:
        self._module.finish()


def known(numbers: Numbers) -> dict[str, float]:
    """The numbers that exist, without the step."""
    return {name: value for name, value in numbers.items() if value is not None and name != "step"}


def _run_id(path: Path) -> str:
    """A name that the run keeps when it is continued, and that no other folder has."""
    return f"{path.name}-{crc32(str(path).encode()):08x}"


@contextmanager
def opened(done: int, config: TrainConfig, names: Sequence[TrackerName]) -> Iterator[list[Tracker]]:
    """TensorBoard and the trackers called `names`, closed at the end.

    Args:
        done: steps that were made before.
        config: the run.
        names: of further trackers.
    Raises:
        ConfigError: a tracker is not installed.
    """
    with ExitStack() as stack:
        found: list[Tracker] = []
        for make in (
            *(partial(Hosted, name, config) for name in names),
            partial(TensorBoard, config.out, done),
        ):
            found.append(make())
            stack.callback(found[-1].close)
        yield found
