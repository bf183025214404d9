"""Trackers of a run's metrics and some episodes: TensorBoard always, wandb and trackio as options.

`metrics.jsonl` and `episodes.jsonl` hold everything a tracker shows, so a run can resume with other
trackers.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from lfpc.episode import Episode
from lfpc.errors import ConfigError
from lfpc.storage.typed import plain
from lfpc.training.config import TrainConfig
from lfpc.training.statistics import Numbers

TrackerName = Literal["wandb", "trackio"]
EVENTS = "events.out.tfevents."
"""Beginning of the names of TensorBoard's files."""
PROJECT = "lfpc"
"""Project name of the runs."""
LONGEST_TEXT = 500
"""Maximum characters of a picture's caption."""


class Tracker(Protocol):
    """A destination for metrics and episodes during a run."""

    def numbers(self, numbers: Numbers, step: int) -> None:
        """Log a step's metrics; None values are skipped."""
        ...

    def episode(self, episode: Episode, step: int) -> None:
        """Log an episode: each picture that the policy saw, with its next reply."""
        ...

    def close(self) -> None:
        """Finish the log."""
        ...


def captioned_pictures(episode: Episode) -> list[tuple[Any, str]]:
    """(PIL image, caption) of each picture that the policy saw: its next reply, after the question
    for the first picture.
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
    """Event files in the run folder; steps after `done` are written again."""

    def __init__(self, path: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _put_in_the_past(path / "tensorboard")
        self._writer = SummaryWriter(str(path / "tensorboard"), purge_step=done + 1)

    def numbers(self, numbers: Numbers, step: int) -> None:
        for name, value in known(numbers).items():
            self._writer.add_scalar(name, value, step)

    def episode(self, episode: Episode, step: int) -> None:
        for n, (picture, text) in enumerate(captioned_pictures(episode)):
            self._writer.add_image(f"episode/{n}", np.asarray(picture), step, dataformats="HWC")
            self._writer.add_text(f"episode/{n}", text.replace("<", "&lt;"), step)

    def close(self) -> None:
        self._writer.close()


def _put_in_the_past(folder: Path) -> None:
    """Rename event files that would sort after a new one, because the clock went back since.
    TensorBoard reads the files of a run in the order of their names, which begin with a time.
    """
    files = sorted(folder.glob(f"{EVENTS}*"))
    for place, file in enumerate(files):
        stamp, _, rest = file.name.removeprefix(EVENTS).partition(".")
        latest = int(time.time()) - len(files) + place
        if stamp.isdigit() and int(stamp) > latest:
            file.rename(folder / f"{EVENTS}{latest:010d}.{rest}")


class Hosted:
    """wandb, or trackio, which has the same interface. Each reads its own configuration of the
    server.
    """

    def __init__(self, name: TrackerName, config: TrainConfig, run_id: str) -> None:
        try:
            self._module: Any = import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"`{name}` needs the package {name}, which cannot be imported ({error}): "
                f"pip install {name}"
            ) from error
        path = config.out.resolve()
        given: dict[str, Any] = {"project": PROJECT, "config": plain(config), "resume": "allow"}
        if name == "wandb":
            given |= {"name": path.name, "id": f"lfpc-{run_id}", "dir": str(path)}
        else:
            given |= {"name": f"lfpc-{run_id}"}  # trackio resumes a run by its name
        self._module.init(**given)

    def numbers(self, numbers: Numbers, step: int) -> None:
        self._module.log(known(numbers), step=step)

    def episode(self, episode: Episode, step: int) -> None:
        shown = {
            f"episode/{n}": self._module.Image(picture, caption=text)
            for n, (picture, text) in enumerate(captioned_pictures(episode))
        }
        self._module.log(shown, step=step)

    def close(self) -> None:
        self._module.finish()


def known(numbers: Numbers) -> dict[str, float]:
    """The metrics with a value, without the step."""
    return {name: value for name, value in numbers.items() if value is not None and name != "step"}


@contextmanager
def opened(
    done: int, config: TrainConfig, names: Sequence[TrackerName], run_id: str
) -> Iterator[list[Tracker]]:
    """TensorBoard and the trackers called `names`, closed at the end.

    Args:
        done: number of finished steps.
        config: the run.
        names: further trackers.
        run_id: `RunFolder.id`, by which a tracker continues the run.
    Raises:
        ConfigError: a tracker is not installed.
    """
    with ExitStack() as stack:
        found: list[Tracker] = []
        for make in (
            *(partial(Hosted, name, config, run_id) for name in names),
            partial(TensorBoard, config.out, done),
        ):
            found.append(make())
            stack.callback(found[-1].close)
        yield found
