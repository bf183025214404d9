"""One evaluation that is being played: how its episodes begin, and the folder of their records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lfpc.caches import byte_cache
from lfpc.episode import Game, episode
from lfpc.errors import RunError
from lfpc.evaluation.replay import Turns, replayed, replies_of, with_counts
from lfpc.images import View, global_view, open_picture, view_bytes
from lfpc.looks import Look
from lfpc.playing.driver import Failure, Item, Question
from lfpc.protocols import ChatProtocol
from lfpc.records import EpisodeRecord, failed_record, log_record, read_records, record_of
from lfpc.rewards import RewardFunction
from lfpc.run_samples import sample_hashes
from lfpc.samples import Sample
from lfpc.storage.runs import RunFolder

UNLIMITED = 16_384
"""First-view budget if neither the caller nor the sample has one: Qwen2.5-VL's upper limit, in
visual tokens."""
VIEW_BYTES = 2**28
"""Bytes of cached first views and of their data URLs, which live as long. Questions about one
picture share them."""


def first_view(sample: Sample, budget: int | None, *, factor: int = 28) -> View:
    """The sample's picture at `budget` visual tokens; None: at the sample's own budget.

    Raises:
        PictureError: the file is not a usable picture.
    """
    return _view(sample.image, budget or sample.budget or UNLIMITED, factor)


def _with_url(view: View) -> int:
    """Bytes of a view, and of its data URL at most: base64 has four for a pixel too."""
    return 2 * view_bytes(view)


@byte_cache(VIEW_BYTES, _with_url)
def _view(path: Path, budget: int, factor: int) -> View:
    return global_view(open_picture(path), budget, factor=factor)


@dataclass(kw_only=True)
class EpisodeSettings:
    """How the episodes of an evaluation are played."""

    protocol: ChatProtocol
    """The model family's protocol."""
    budget: int | None
    """Visual tokens of the first view; None: each sample's own."""
    look: Look
    """What the crop tool shows."""
    max_turns: int = 6
    """Turn limit of an episode."""
    reward: RewardFunction | None = None
    """Reward whose terms each record shows; None: none."""
    before: Mapping[str, Turns] = field(default_factory=dict[str, Turns])
    """Recorded turns by sample id, to replay before the policy replies."""
    draw: int = 0
    """Number of the draw; runs with different ones are sampled independently."""

    def item(self, sample: Sample) -> Item[EpisodeRecord]:
        """The item of one episode, whose result is its record."""
        (played,) = yield Question(lambda: [self._start(sample)])
        return record_of(
            played,
            self.reward and self.reward(played),
            factor=self.protocol.factor,
            budget=self.budget or sample.budget,
        )

    def _start(self, sample: Sample) -> Game:
        game = episode(
            sample,
            first_view(sample, self.budget, factor=self.protocol.factor),
            look=self.look,
            protocol=self.protocol,
            max_turns=self.max_turns,
            draw=self.draw,
        )
        return replayed(game, replies_of(self.before.get(sample.id, ())))


@dataclass(kw_only=True)
class OpenEvaluation(EpisodeSettings):
    """Questions under one probe, whose records go to one run folder. Those with a record there are
    not asked again, except failed ones.
    """

    samples: Sequence[Sample]
    run: RunFolder
    """Run folder of one model, budget and probe."""
    max_failures: int = 20
    """Failures of the policy or the look to accept before giving up."""

    def __post_init__(self) -> None:
        there = read_records(self.run, self.samples).values()
        self._records = {record.sample.id: record for record in there if not record.failed}
        self.todo = [sample for sample in self.samples if sample.id not in self._records]
        self._hashes = sample_hashes(self.todo, self.budget)
        self._failed: list[str] = []
        self._played = 0

    @property
    def records(self) -> list[EpisodeRecord]:
        """The records, in the order of `samples`, once all are played."""
        return [self._records[sample.id] for sample in self.samples]

    def record(
        self,
        sample: Sample,
        result: EpisodeRecord | Failure,
        seconds: float,
        concurrency: int | None,
    ) -> None:
        """Write the record of a played sample."""
        made = (
            failed_record(sample, result.why)
            if isinstance(result, Failure)
            else replace(result, asked=self._hashes[sample.id])
        )
        made = replace(made, seconds=seconds, concurrency=concurrency)
        turns = self.before.get(sample.id)
        made = self._records[sample.id] = with_counts(made, turns) if turns else made
        log_record(self.run, sample.id, made)
        if isinstance(result, Failure) and result.counts:
            self._failed.append(result.why)
        self._played += 1

    def check(self) -> None:
        """Check the number of failures.

        Raises:
            RunError: more than `max_failures` samples failed, or all of them.
        """
        failed = len(self._failed)
        if failed > self.max_failures or failed == len(self.samples) > 0:
            raise RunError(
                f"{self.run.path}: {failed} of {self._played} questions failed, the last with: "
                f"{self._failed[-1]}"
            )
