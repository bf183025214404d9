"""Probes of crop dependence: the same question with something else shown for the crop.

A policy that uses its crops loses accuracy when they are replaced. `PROBES` maps each name to a
function that makes the Look.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from lfpc.boxes import WHOLE
from lfpc.errors import ConfigError, SampleError
from lfpc.images import CropRules
from lfpc.looks import (
    Look,
    black_look,
    blur_look,
    fixed_look,
    mean_look,
    no_look,
    noise_look,
    original_look,
    other_look,
    random_look,
    truth_look,
)
from lfpc.metrics.statistics import Difference, paired_difference
from lfpc.metrics.summary import Records
from lfpc.records import EpisodeRecord
from lfpc.samples import Sample

OWN = "own"
"""The ordinary evaluation: the crop tool shows the requested crop."""
REPEAT = "repeat"
"""The ordinary evaluation again, which shows the effect of chance."""
NO_TOOL = "no-tool"
"""The question alone: the model is not offered the tool, and answers at once. Accuracy lost is what
the tool is worth."""
MakeLook = Callable[[Sequence[Sample], CropRules, int], Look]
"""(all samples of the evaluation, crop rules, seed) -> look."""


def derangement(samples: Sequence[Sample], seed: int) -> Callable[[Sample], Sample]:
    """A function from each sample to one about another picture: the next in a seeded ring of
    pictures.

    Depends on all `samples`, so a resumed run shows the same pictures.

    Raises:
        SampleError: fewer than two pictures.
    """
    first = {sample.image: sample for sample in reversed(samples)}
    ring = sorted(first, key=str)
    if len(ring) < 2:
        raise SampleError(f"the probe 'other' needs at least 2 pictures, got {len(ring)}")
    random.Random(seed).shuffle(ring)
    following = {
        image: first[after] for image, after in zip(ring, ring[1:] + ring[:1], strict=True)
    }
    return lambda sample: following[sample.image]


PROBES: Mapping[str, MakeLook] = {
    "own": lambda samples, rules, seed: original_look(rules),
    "repeat": lambda samples, rules, seed: original_look(rules),
    "truth": lambda samples, rules, seed: truth_look(rules),
    "truth-wide": lambda samples, rules, seed: truth_look(rules, padding=0.5),
    "truth-each": lambda samples, rules, seed: truth_look(rules, each=True),
    "noise": lambda samples, rules, seed: noise_look(rules, seed=seed),
    "noise-added": lambda samples, rules, seed: noise_look(rules, seed=seed, added=True),
    "other": lambda samples, rules, seed: other_look(rules, derangement(samples, seed)),
    "mean": lambda samples, rules, seed: mean_look(rules),
    "black": lambda samples, rules, seed: black_look(rules),
    "blur": lambda samples, rules, seed: blur_look(rules),
    "random": lambda samples, rules, seed: random_look(rules, seed=seed),
    "whole": lambda samples, rules, seed: fixed_look(rules, WHOLE),
    "none": lambda samples, rules, seed: no_look,
    NO_TOOL: lambda samples, rules, seed: no_look,
}
"""What each probe shows.

own         the requested crop
repeat      the requested crop again, in a second run
truth       the union of the targets' truth boxes (the second of nested ones), without padding
truth-wide  the same with half of its width and height added on every side, for tight boxes
truth-each  one target's truth box per call, the nearest to the requested box, without padding
noise       uniform random pixels
noise-added the requested crop plus Gaussian noise
other       the same box of another question's picture
mean        the crop's mean colour
black       black
blur        the crop, blurred until unreadable
random      a box of the requested size at a random place of the same picture
whole       the whole picture, at the resolution of a crop
none        no picture
no-tool     nothing: the model is not offered the tool
"""
SWAPPED = ("noise", "other", "noise-added", "mean", "black", "blur")
"""Probes that show something without the answer, in the order in which a verdict prefers them. A
missing picture is none of them, as a model may never have seen its message."""
REPLAYED = " (replay)"
"""Suffix of the name of a replayed probe, beside those that were played."""
RANDOM = ("noise", "noise-added", "other", "random")
"""Probes that depend on a seed."""


def name_in_results(probe: str, *, replay: bool) -> str:
    """The name of a probe where replayed ones stand beside those that were played."""
    return f"{probe}{REPLAYED}" if replay and probe != OWN else probe


def swapped_probe(ran: Collection[str]) -> str | None:
    """The name of the first probe of `SWAPPED` that ran, played before replayed; None: none did."""
    names = (f"{probe}{how}" for probe in SWAPPED for how in ("", REPLAYED))
    return next((name for name in names if name in ran), None)


def check_probe_names(names: Sequence[str], known: Sequence[str] = tuple(PROBES)) -> None:
    """Check names of probes.

    Raises:
        ConfigError: a name is not among the known ones.
    """
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"unknown probe {unknown[0]!r}; known are {', '.join(known)}")


def samples_of_probe(samples: Sequence[Sample], probe: str) -> list[Sample]:
    """Samples that `probe` can use: the truth probes need boxes.

    Raises:
        SampleError: no sample has boxes.
    """
    fitting = [sample for sample in samples if sample.boxes or not probe.startswith("truth")]
    if samples and not fitting:
        raise SampleError(
            f"the probe {probe!r} needs samples with boxes, and none of these "
            f"{len(samples)} has any; leave it out"
        )
    return fitting


def average_draws(draws: Sequence[Records]) -> list[EpisodeRecord]:
    """One record per question, whose `correct` is the share of correct draws (seeds of one probe,
    or repeats).

    Other fields come from the first draw with an episode; `error` from any failed draw.
    """
    by_sample: dict[str, list[EpisodeRecord]] = {}
    for draw in draws:
        for record in draw:
            by_sample.setdefault(record.sample.id, []).append(record)
    return [_averaged(some) for some in by_sample.values()]


def _averaged(draws: Records) -> EpisodeRecord:
    played = next((record for record in draws if not record.failed), draws[0])
    error = next((record.error for record in draws if record.failed), "")
    return replace(played, correct=fmean(record.score for record in draws), error=error)


def paired(a: Records, b: Records) -> list[tuple[EpisodeRecord, EpisodeRecord]]:
    """Pairs of records of the same question and seed, in the order of `a`. Failed questions have no
    pair: a missing answer is no effect of what was shown.
    """
    partner = {(record.sample.id, record.seed): record for record in b if not record.failed}
    keys = ((record, (record.sample.id, record.seed)) for record in a if not record.failed)
    return [(record, partner[key]) for record, key in keys if key in partner]


def accuracy_drop(own: Records, probe: Records, *, seed: int = 0) -> Difference:
    """accuracy(own) - accuracy(probe), paired by question and seed, clustered by picture.

    Args:
        own, probe: records with the policy's own crops, and under the probe, the latter one per
            question and seed.
        seed: seed of the bootstrap.
    """
    pairs = paired(own, probe)
    return paired_difference(
        [a.score for a, _ in pairs],
        [b.score for _, b in pairs],
        [a.cluster for a, _ in pairs],
        seed=seed,
    )
