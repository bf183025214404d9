"""Workers' reports of rollouts, and their lines in `metrics.jsonl` and `episodes.jsonl`.

Independent of verl: the metrics come from the local engine's functions.
"""

import pickle
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from lfpc.episode import Episode
from lfpc.errors import RunError
from lfpc.images import View
from lfpc.records import EpisodeRecord, log_record, record_of
from lfpc.rewards import RewardTerms
from lfpc.storage.runs import RunFolder
from lfpc.training.config import TrainConfig
from lfpc.training.groups import (
    Group,
    episodes_of,
    group_of,
    places_to_log,
    terms_of,
)
from lfpc.training.statistics import Numbers, episode_numbers, sampling_numbers

MOST_FAILED = 0.05
"""Maximum share of failed rollouts in a step. Occasional server failures are tolerated; more
indicate a faulty set-up or data."""
_BLANK = Image.new("1", (1, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRollout:
    """One rollout as its worker reports it."""

    episode: Episode
    """The episode, without pixels."""
    terms: RewardTerms
    record: EpisodeRecord
    """The record for `episodes.jsonl`."""
    question: int
    """Place of the question in the run's schedule."""
    rollout: int
    """Number among the rollouts of the question."""
    overlong: bool
    """Whether it is too long, and therefore not trained on."""

    def to_bytes(self) -> bytes:
        """Serialised for verl's queue."""
        return pickle.dumps(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> "RecordedRollout":
        """The inverse. Only for bytes of this run's own workers, as it unpickles them."""
        return pickle.loads(data)


def played(
    episode: Episode,
    terms: RewardTerms,
    *,
    question: int,
    rollout: int,
    overlong: bool,
    factor: int = 28,
) -> RecordedRollout:
    """The report of `episode`."""
    return RecordedRollout(
        episode=_without_pixels(episode),
        terms=terms,
        record=record_of(episode, terms, factor=factor),
        question=question,
        rollout=rollout,
        overlong=overlong,
    )


def _without_pixels(episode: Episode) -> Episode:
    def bare(view: View | None) -> View | None:
        return view and replace(view, image=_BLANK)

    turns = tuple(replace(turn, view=bare(turn.view)) for turn in episode.turns)
    return replace(episode, first_view=replace(episode.first_view, image=_BLANK), turns=turns)


def recorded_groups(rollouts: Sequence[RecordedRollout], config: TrainConfig) -> list[Group]:
    """The groups of a step, in the order of the schedule, without failed rollouts."""
    return [
        group_of(
            [one.episode for one in found], [one.terms for one in found], config.advantage_scale
        )
        for found in _by_question(rollouts)
    ]


def _by_question(rollouts: Sequence[RecordedRollout]) -> list[list[RecordedRollout]]:
    """Rollouts by question, questions and rollouts in the order of the schedule."""
    questions: defaultdict[int, list[RecordedRollout]] = defaultdict(list)
    for one in sorted(rollouts, key=lambda one: (one.question, one.rollout)):
        questions[one.question].append(one)
    return list(questions.values())


def check_complete(count: int, config: TrainConfig) -> int:
    """Number of failed rollouts of a step with `count` reports.

    Raises:
        RunError: more than `MOST_FAILED`.
    """
    wanted = config.prompts_per_step * config.group_size
    if wanted - count > MOST_FAILED * wanted:
        raise RunError(
            f"{wanted - count} of the {wanted} rollouts of a step failed; see the log "
            f"above (search for 'Error in _run_prompt')"
        )
    return wanted - count


def step_numbers(rollouts: Sequence[RecordedRollout], config: TrainConfig) -> Numbers:
    """Metrics of a step's episodes; sampling metrics use only questions without failed rollouts."""
    groups = recorded_groups(rollouts, config)
    whole = [group for group in groups if len(group.episodes) == config.group_size]
    return {
        **episode_numbers(episodes_of(groups), terms_of(groups)),
        **sampling_numbers(whole),
        "trained_rollouts": trained_rollouts(rollouts, config),
        "overlong": sum(one.overlong for one in rollouts),
        "failed": check_complete(len(rollouts), config),
    }


def trained_rollouts(rollouts: Sequence[RecordedRollout], config: TrainConfig) -> int:
    """Number of rollouts with a gradient: not overlong, and with a nonzero advantage."""
    return sum(
        advantage != 0 and not one.overlong
        for found in _by_question(rollouts)
        if len(found) == config.group_size
        for one, advantage in zip(
            found,
            group_of([one.episode for one in found], [one.terms for one in found]).advantages,
            strict=True,
        )
    )


def log_episodes(
    run: RunFolder, config: TrainConfig, step: int, rollouts: Sequence[RecordedRollout]
) -> None:
    """Write as many episodes of the step as asked for: the first rollout of every question that did
    not fail, then second ones, and so on. Keys count failed rollouts and questions.
    """
    groups = recorded_groups(rollouts, config)
    questions = _by_question(rollouts)
    for group, number in places_to_log(groups, config.log_episodes):
        one = questions[group][number]
        place = one.question % config.prompts_per_step
        record = replace(one.record, step=step, advantage=groups[group].advantages[number])
        log_record(run, f"{step}/{place}/{one.rollout}", record)
