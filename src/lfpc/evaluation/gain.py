"""The gain of a crop in nats: how much more likely the right answer is after the model's own crop
than after something else in its place.

    gain(look) = log p(answer | own crop) - log p(answer | look)

The recorded replies are played again up to the last, which answered, with the look's pictures in
place of the crops. The answer is not sampled: it is written after the protocol's `answer_mark`, and
its probability is read. A question thus gives a number where a probe gives right or wrong, so fewer
questions show a difference. With options the answers are their letters, and probabilities are
normalised over them; else the answer is the text, whole.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from lfpc.dialogue import Answer, Context
from lfpc.episode import episode
from lfpc.errors import ConfigError, RunError
from lfpc.evaluation.differences import adjust
from lfpc.evaluation.opened import first_view
from lfpc.evaluation.places import Evaluation, own_evaluation
from lfpc.evaluation.probes import NO_TOOL, OWN, PROBES, REPEAT, samples_of_probe
from lfpc.evaluation.replay import replies_of
from lfpc.evaluation.run import check_evaluation, evaluation_inputs
from lfpc.looks import Look
from lfpc.metrics.power import power_line
from lfpc.metrics.statistics import paired_difference
from lfpc.metrics.summary import Records
from lfpc.playing.progress import progress_bar
from lfpc.policies.backends import Backend, backend_name
from lfpc.policies.config import ModelPolicy, ScoringPolicy, TextLogprob
from lfpc.policies.loading import any_policy
from lfpc.records import EpisodeRecord
from lfpc.samples import LETTERS, Sample
from lfpc.storage.files import write_json
from lfpc.storage.runs import Kind, RunFolder

GAIN_FOLDER = "gain"
GAIN_FILE = "gain.json"
LOOKS = ("noise", "other", "mean", "truth")
"""Looks of `lfpc probe --gain` by default; truth where samples have boxes."""
NOTHING = 0.1
"""Gains of at most this many nats, either way, count as none: 10 % of a probability. "No sign" of a
gain needs questions that would show one of this size."""
BINS = 10
"""Bins of the calibration error."""


@dataclass(frozen=True, slots=True)
class Readout:
    """What a model thinks of one question under one look, without having to say it."""

    sample: Sample
    look: str
    logprob: float
    """Log-probability of the right answer, in nats; over the options if there are any."""
    tokens: int
    """Tokens of the right answer."""
    options: tuple[float, ...] = ()
    """Log-probability of every option, normalised; empty: a free answer."""

    @property
    def entropy(self) -> float | None:
        """Entropy over the options, in nats; None: a free answer."""
        return -sum(exp(value) * value for value in self.options) if self.options else None

    @property
    def above_chance(self) -> float | None:
        """Log-probability of the right answer, at least that of a guess; None: a free answer.

        Differences of these do not grow with how confidently wrong a model is.
        """
        return max(self.logprob, -log(len(self.options))) if self.options else None


class NoCropError(RunError):
    """An evaluation has no question with a crop."""


def read_gain(
    place: Path,
    looks: Sequence[str] = LOOKS,
    *,
    policy: ModelPolicy | None = None,
    backend: Backend = None,
    batch: int = 32,
    progress: bool = True,
) -> dict[str, Any]:
    """Read the right answer's probability of a recorded evaluation under its own crops and under
    each look. Readouts go to `place`/gain, and are not asked again; the summary to
    `place`/gain.json.

    Args:
        place: an evaluation, or the folder of one with its probes.
        looks: names in `PROBES`; "truth" is left out where no sample has boxes.
        policy: the recorded model; None: it is loaded, or asked at `backend`.
        backend: what computes; None: transformers in this process.
        batch: questions per batch.
        progress: whether to show a progress bar, or lines without a terminal.
    Returns:
        See `gain_results`.
    Raises:
        ConfigError: an unknown look.
        NoCropError: no question was answered after a crop.
        RunError: `place` holds no evaluation, or its samples or model have changed.
        PolicyError: the backend gives no log-probabilities of texts that it did not write.
    """
    readable = [probe for probe in PROBES if probe not in (OWN, REPEAT, NO_TOOL)]
    if unknown := [look for look in looks if look not in readable]:
        known = ", ".join(readable)
        raise ConfigError(f"unknown probe {unknown[0]!r}; known for --gain are {known}")
    recorded = own_evaluation(place)
    chosen = [record for record in recorded.records() if _has_gain(record)]
    if not chosen:
        raise NoCropError(
            f"{recorded.folder}: no question was answered after a crop, so no crop has a gain"
        )
    inputs = evaluation_inputs(recorded.config, backend)
    samples = [record.sample for record in chosen]
    check_evaluation(recorded.folder, recorded.config, samples, inputs)
    scoring = scoring_policy(policy or any_policy(recorded.config, backend), "--gain")
    config = recorded.config
    wanted = {
        look: {sample.id for sample in samples_of_probe(samples, look)}
        for look in (OWN, *looks)
        if not look.startswith("truth") or any(sample.boxes for sample in samples)
    }
    run = RunFolder.open(
        place / GAIN_FOLDER,
        Kind.GAIN,
        config,
        inputs=inputs,
        samples=recorded.run.samples_file,
        backend=backend_name(backend),
    )
    with run, getattr(scoring, "cached_views", nullcontext)():
        known = readouts(run, samples)
        missing = [
            (record, look)
            for record in chosen
            for look, names in wanted.items()
            if record.sample.id in names and (record.sample.id, look) not in known
        ]
        shown = {look: PROBES[look](samples, config.crop_rules, config.seed) for look in wanted}
        known |= new_readouts(
            scoring,
            missing,
            shown,
            recorded,
            run,
            batch=batch,
            label="gain",
            already=len(known),
            progress=progress,
        )
    results = gain_results(chosen, known)
    write_json(place / GAIN_FILE, results)
    return results


def _has_gain(record: EpisodeRecord) -> bool:
    answered = bool(record.turns) and isinstance(record.turns[-1].action, Answer)
    free = not record.sample.options
    return answered and bool(record.crops) and (free or record.sample.choice is not None)


def scoring_policy(policy: object, option: str) -> ScoringPolicy:
    """`policy`, which gives log-probabilities.

    Raises:
        ConfigError: it does not; names the option that needs them.
    """
    if not isinstance(policy, ScoringPolicy):
        raise ConfigError(
            f"{option} needs log-probabilities of given answers, which this engine does not give; "
            f"use a checkpoint without --engine, or a vLLM server with --base-url"
        )
    return policy


def new_readouts(
    policy: ScoringPolicy,
    asked: Sequence[tuple[EpisodeRecord, str]],
    looks: Mapping[str, Look],
    recorded: Evaluation,
    run: RunFolder,
    *,
    batch: int,
    label: str,
    already: int,
    progress: bool,
) -> dict[tuple[str, str], Readout]:
    """Readouts by (sample id, look), each written to `run` at once.

    Args:
        policy: gives the log-probabilities.
        asked: records, whose samples have the answer to read, and names of looks.
        looks: the looks by name.
        recorded: the evaluation that the records belong to.
        run: the run folder.
        batch: readouts per batch.
        label: label of the progress bar.
        already: number of readouts that are there.
        progress: whether to show the bar.
    """
    found: dict[tuple[str, str], Readout] = {}
    total = already + len(asked)
    with progress_bar(total, already, label, unit="readout", shown=progress) as advance:
        for start in range(0, len(asked), batch):
            some = asked[start : start + batch]
            contexts = [last_context(record, looks[look], recorded) for record, look in some]
            answers = [read_answers(record.sample) for record, _ in some]
            scores = policy.answer_logprobs(contexts, answers)
            for (record, look), logprobs in zip(some, scores, strict=True):
                one = found[record.sample.id, look] = readout(record.sample, look, logprobs)
                run.log_episode(f"{record.sample.id}/{look}", _row(one))
            advance(len(some))
    return found


def read_answers(sample: Sample) -> list[str]:
    """The answers to read: the letters of the options, or the answer's text if it is none."""
    return [sample.answer] if sample.choice is None else list(LETTERS[: len(sample.options)])


def readout(sample: Sample, look: str, logprobs: Sequence[TextLogprob]) -> Readout:
    """The readout of log-probabilities of `sample`'s answers, see `read_gain`."""
    if sample.choice is None:
        return Readout(sample, look, logprobs[0].total, logprobs[0].tokens)
    totals = np.array([one.total for one in logprobs])
    normalised = totals - np.logaddexp.reduce(totals)
    return Readout(
        sample,
        look,
        float(normalised[sample.choice]),
        logprobs[sample.choice].tokens,
        tuple(map(float, normalised)),
    )


def last_context(record: EpisodeRecord, look: Look, recorded: Evaluation) -> Context:
    """What the model saw before its last reply, with the pictures of `look`."""
    config = recorded.config
    view = first_view(record.sample, config.budget, factor=config.chat.factor)
    game = episode(record.sample, view, look=look, protocol=config.chat, max_turns=config.max_turns)
    try:
        context = next(game)
        for reply in replies_of(record.turns[:-1]):
            context = game.send(reply)
    except StopIteration:
        raise RunError(
            f"{recorded.folder}: the recorded replies to {record.sample.id!r} end the episode too "
            f"early; was the run made with other settings?"
        ) from None
    return context


def _row(one: Readout) -> dict[str, Any]:
    return {
        "sample": one.sample.id,
        "look": one.look,
        "logprob": one.logprob,
        "tokens": one.tokens,
        "options": one.options,
    }


def readouts(run: RunFolder, samples: Sequence[Sample]) -> dict[tuple[str, str], Readout]:
    """The readouts of a run folder by (sample id, look).

    Raises:
        RunError: a line is no readout.
    """
    by_name = {sample.id: sample for sample in samples}
    found: dict[tuple[str, str], Readout] = {}
    for key, row in run.episodes().items():
        if row.get("sample") not in by_name:
            continue
        try:
            found[row["sample"], row["look"]] = Readout(
                by_name[row["sample"]],
                row["look"],
                float(row["logprob"]),
                int(row["tokens"]),
                tuple(map(float, row["options"])),
            )
        except (LookupError, TypeError, ValueError) as error:
            raise RunError(
                f"{run.path}: the line of {key!r} is no readout ({error}); delete the folder to "
                f"have them read again"
            ) from error
    return found


def gain_results(records: Records, known: Mapping[tuple[str, str], Readout]) -> dict[str, Any]:
    """The summary of the readouts of `records`.

    Returns:
        "n": questions; "logprob" and "per_token": mean log-probability of the right answer under
        its own crop, in nats, whole and per token of the answer; "entropy": mean over the options;
        "ece": expected calibration error over the options, in [0, 1] (Naeini et al. 2015);
        "looks": for each look a row of `Difference` with "p_holm" (adjusted over the looks),
        "power", "helped", "nothing" and "hurt" (shares of questions), "entropy", "above_chance" (a
        row, at most the distance of certainty from a guess; None without options) and
        "per_visual_token" (nats per token of the crops).
    """
    own = [known[record.sample.id, OWN] for record in records]
    looks = list(dict.fromkeys(look for _, look in known if look != OWN))
    sure = [one for one in own if one.options]
    rows = {look: _gain_row(records, known, look) for look in looks}
    adjust(list(rows.values()))
    return {
        "n": len(own),
        "logprob": fmean(one.logprob for one in own),
        "per_token": fmean(one.logprob / one.tokens for one in own),
        "entropy": _mean([one.entropy for one in own]),
        "ece": _calibration_error(sure) if sure else None,
        "looks": rows,
    }


def _gain_row(
    records: Records, known: Mapping[tuple[str, str], Readout], look: str
) -> dict[str, Any]:
    pairs = [
        (record, known[record.sample.id, OWN], known[record.sample.id, look])
        for record in records
        if (record.sample.id, look) in known
    ]
    gains = [own.logprob - other.logprob for _, own, other in pairs]
    difference = paired_difference(
        [own.logprob for _, own, _ in pairs],
        [other.logprob for _, _, other in pairs],
        [record.cluster for record, _, _ in pairs],
    )
    capped = [
        (own.above_chance, other.above_chance, record.cluster)
        for record, own, other in pairs
        if own.above_chance is not None and other.above_chance is not None
    ]
    tokens = sum(record.crop_tokens or 0 for record, _, _ in pairs)
    return {
        **difference.as_row(),
        "power": power_line(difference, nats=True),
        "helped": fmean(gain > NOTHING for gain in gains),
        "nothing": fmean(abs(gain) <= NOTHING for gain in gains),
        "hurt": fmean(gain < -NOTHING for gain in gains),
        "entropy": _mean([other.entropy for _, _, other in pairs]),
        "above_chance": paired_difference(
            [a for a, _, _ in capped], [b for _, b, _ in capped], [c for _, _, c in capped]
        ).as_row()
        if capped
        else None,
        "per_visual_token": sum(gains) / tokens if tokens else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _calibration_error(answers: Sequence[Readout]) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over equal bins.
    Of options that tie, as coarse logits do, each is chosen as often.
    """
    confidence = np.array([exp(max(one.options)) for one in answers])
    right = np.array(
        [(one.logprob == max(one.options)) / one.options.count(max(one.options)) for one in answers]
    )
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(
        sum(abs(confidence[bins == b].sum() - right[bins == b].sum()) for b in range(BINS))
        / len(answers)
    )
