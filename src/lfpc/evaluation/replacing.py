"""Regions in place of a recorded evaluation's crops, which need no model that points.

The recorded replies are played again up to the first call. A region of the original is shown in
place of the crop, and the model continues. `lfpc.evaluation.search` and
`lfpc.evaluation.attention` choose the regions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from lfpc.answers import check_answer
from lfpc.boxes import Box, coverage
from lfpc.evaluation.differences import adjust, difference_row
from lfpc.evaluation.gain import NoCropError
from lfpc.evaluation.incomplete import shortfall
from lfpc.evaluation.opened import OpenEvaluation
from lfpc.evaluation.places import Evaluation, own_evaluation
from lfpc.evaluation.replay import Turns, prefixes
from lfpc.evaluation.run import check_evaluation, evaluate, evaluation_inputs
from lfpc.images import View, crop_view, open_picture
from lfpc.metrics.summary import Records
from lfpc.policies.backends import Backend, backend_name
from lfpc.policies.config import ModelPolicy
from lfpc.policies.loading import any_policy
from lfpc.records import EpisodeRecord
from lfpc.samples import Sample
from lfpc.storage.runs import Kind, RunFolder

Key = tuple[str, str]
"""(sample id, name of a region)."""


@dataclass(frozen=True, slots=True)
class Cropped:
    """The questions of a recorded evaluation that have a crop, and their model."""

    recorded: Evaluation
    total: int
    """Questions of the evaluation, also those without a crop."""
    records: Records
    """The records with a crop."""
    turns: Mapping[str, Turns]
    """Their replies to play again, by sample id."""
    policy: ModelPolicy
    open_run: Callable[[Path], RunFolder]
    """Opens a folder for results about them."""

    @classmethod
    def of(cls, place: Path, kind: Kind, policy: ModelPolicy | None, backend: Backend) -> Self:
        """The questions of `place`, an evaluation or the folder of one with its probes.

        Args:
            place: the folder.
            kind: kind of the folders of results.
            policy: the recorded model; None: it is loaded, or asked at `backend`.
            backend: what computes; None: transformers in this process.
        Raises:
            NoCropError: no question has a crop.
            RunError: `place` holds no evaluation, or its samples or model have changed.
        """
        recorded = own_evaluation(place)
        own = recorded.records()
        turns = prefixes(own)
        records = [record for record in own if record.sample.id in turns]
        if not records:
            raise NoCropError(
                f"{recorded.folder}: no question has a crop to show another region in place of"
            )
        config = recorded.config
        inputs = evaluation_inputs(config, backend)
        check_evaluation(recorded.folder, config, [one.sample for one in records], inputs)
        open_run = partial(
            RunFolder.open,
            kind=kind,
            config=config,
            inputs=inputs,
            samples=recorded.run.samples_file,
            backend=backend_name(backend),
        )
        policy = policy or any_policy(config, backend)
        return cls(recorded, len(own), records, turns, policy, open_run)


class Replacing:
    """Every question of `cropped` under every name of a region.

    Args:
        cropped: the questions.
        names: names of the regions.
        region: the region to show for a key. Its exception fails the question.
        run: folder of the answers.
    """

    def __init__(
        self,
        cropped: Cropped,
        names: Sequence[str],
        region: Callable[[Key], Box],
        run: RunFolder,
    ) -> None:
        config = cropped.recorded.config
        self.pairs = {
            f"{one.sample.id}/{name}": (one, name) for one in cropped.records for name in names
        }
        self.policy = cropped.policy

        def look(sample: Sample, _: Box) -> View:
            one, name = self.pairs[sample.id]
            box = region((one.sample.id, name))
            return crop_view(open_picture(sample.image), box, config.crop_rules)

        self.questions = OpenEvaluation(
            protocol=config.chat,
            budget=config.budget,
            look=look,
            max_turns=config.max_turns,
            before={key: cropped.turns[one.sample.id] for key, (one, _) in self.pairs.items()},
            samples=[replace(one.sample, id=key) for key, (one, _) in self.pairs.items()],
            run=run,
            max_failures=20 * len(names),
        )

    @property
    def todo(self) -> list[EpisodeRecord]:
        """The own records of the questions that lack an answer."""
        lacking = [self.pairs[sample.id][0] for sample in self.questions.todo]
        return list({one.sample.id: one for one in lacking}.values())

    def answers(self, label: str, *, progress: bool) -> dict[Key, EpisodeRecord]:
        """The records under each region; those in the folder are not asked again."""
        (played,) = evaluate([self.questions], self.policy, label=label, progress=progress)
        return {
            (one.sample.id, name): replace(found, sample=one.sample)
            for (one, name), found in zip(self.pairs.values(), played, strict=True)
        }


def results_in_place(
    cropped: Cropped, rows: Mapping[str, dict[str, Any]], name: str
) -> dict[str, Any]:
    """The summary of what is shown in place of the crops.

    Args:
        cropped: the questions.
        rows: rows of `row_in_place`, with more.
        name: name of the rows.
    Returns:
        "questions": all of the evaluation; "n": those with a crop; "accuracy" and "visual_tokens":
        means with their own crops; the rows under `name`, each with its p adjusted for their
        number; "incomplete": the `shortfall` of the last.
    """
    adjust([row["difference"] for row in rows.values() if row["difference"]])
    return {
        "questions": cropped.total,
        "n": len(cropped.records),
        "accuracy": fmean(by_rule(record).score for record in cropped.records),
        "visual_tokens": fmean(record.visual_tokens or 0 for record in cropped.records),
        name: dict(rows),
        "incomplete": list(rows.values())[-1]["incomplete"],
    }


def row_in_place(cropped: Cropped, found: Records) -> dict[str, Any]:
    """The answers `found` to the questions of `cropped`, by rule.

    Returns:
        "accuracy", in which a failed question is wrong; "difference": to the own crops, see
        `difference_row`; "visual_tokens": mean of the others; "incomplete": see `shortfall`.
    """
    return {
        "accuracy": fmean(one.score for one in found),
        "difference": difference_row(found, [by_rule(one) for one in cropped.records]),
        "visual_tokens": mean_of(one.visual_tokens for one in found if not one.failed),
        "incomplete": shortfall(found),
    }


def by_rule(record: EpisodeRecord) -> EpisodeRecord:
    """The record with the verdict of the rules, without a judge."""
    return replace(record, correct=check_answer(record.said, record.sample).correct)


def holds_truth(box: Box, sample: Sample) -> bool | None:
    """Whether every truth box (the tightest) lies inside `box`; None: there are none."""
    inside = [coverage(box, nested[0]) > 1 - 1e-6 for nested in sample.boxes]
    return all(inside) if inside else None


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the known values; None: there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
