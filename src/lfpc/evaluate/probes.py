"""Probes of crop dependence: the same question, and another thing shown for the crop.

A policy that uses its crops loses accuracy when they are replaced. `PROBES` is the table; each
entry makes a Look.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from lfpc.errors import SampleError
from lfpc.images import CropRules
from lfpc.looks import (
    Look,
    blur_look,
    mean_look,
    no_look,
    noise_look,
    original_look,
    other_look,
    truth_look,
)
from lfpc.metrics.episodes import Row, cluster_of, score
from lfpc.metrics.statistics import Difference, paired_difference
from lfpc.samples import Sample

MakeLook = Callable[[Sequence[Sample], CropRules, int], Look]
"""(all samples of the evaluation, crop rules, seed) -> what the crop tool shows."""


def derangement(samples: Sequence[Sample], seed: int) -> Callable[[Sample], Sample]:
    """For each sample one about another picture: the pictures in one seeded ring, each answered by
    the next.

    Depends on all `samples`, not on which are still to do, so that a resumed run shows the same
    pictures.

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
    "other": lambda samples, rules, seed: other_look(rules, derangement(samples, seed)),
    "mean": lambda samples, rules, seed: mean_look(rules),
    "blur": lambda samples, rules, seed: blur_look(rules),
    "none": lambda samples, rules, seed: no_look,
}
"""What each probe shows.

own         the requested crop
repeat      that once more: base against base
truth       the union of the targets' truth boxes (of nested ones the second, which has some room),
            without further padding
truth-wide  the same with half of its width and height added on every side: for data whose boxes are
            tight
truth-each  one target's truth box a call, the one nearest to the requested box, without further
            padding
noise       uniform random pixels
other       the same box of another question's picture
mean        the crop's mean colour
blur        the crop, blurred beyond reading
none        no picture
"""
RANDOM = ("noise", "other")
"""Probes that depend on a seed: their draws can be averaged."""


def samples_of_probe(samples: Sequence[Sample], probe: str) -> list[Sample]:
    """Those questions that `probe` can be asked about: the truth probes need boxes.

    Raises:
        SampleError: there are none.
    """
    fitting = [sample for sample in samples if sample.boxes or not probe.startswith("truth")]
    if samples and not fitting:
        raise SampleError(
            f"the probe {probe!r} needs questions with boxes, and none of these "
            f"{len(samples)} has any; leave it out"
        )
    return fitting


def average_draws(draws: Sequence[Sequence[Row]]) -> list[Row]:
    """One row a question, whose "correct" is the share of the draws (several seeds of one probe)
    that were right.

    The row's other facts are those of the first draw, "seed" as well; an "error" is that of any
    draw.
    """
    rows: dict[str, list[Row]] = {}
    for draw in draws:
        for row in draw:
            rows.setdefault(row["sample"], []).append(row)
    merged = {
        name: {key: value for row in reversed(some) for key, value in row.items()}
        for name, some in rows.items()
    }
    return [{**merged[name], "correct": fmean(map(score, some))} for name, some in rows.items()]


def paired_rows(own: Sequence[Row], probe: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of the same question and seed, in the order of `own`; rows without a partner are left
    out.
    """
    partner = {(row["sample"], row.get("seed")): row for row in probe}
    return [
        (row, partner[key]) for row in own if (key := (row["sample"], row.get("seed"))) in partner
    ]


def accuracy_drop(
    own: Sequence[Row], probe: Sequence[Row], *, only_tool: bool = False, seed: int = 0
) -> Difference:
    """accuracy(own) - accuracy(probe), paired by question and seed, clustered by picture.

    Args:
        own, probe: evaluation rows under the policy's own crops and under the probe, the latter one
            row a question and seed.
        only_tool: only questions on which the own run showed a crop.
        seed: of the resampling.
    """
    pairs = [(a, b) for a, b in paired_rows(own, probe) if a.get("tool") or not only_tool]
    right = [(score(a), score(b)) for a, b in pairs]
    return paired_difference(
        [a for a, _ in right], [b for _, b in right], [cluster_of(a) for a, _ in pairs], seed=seed
    )


def probe_differences(
    own: Sequence[Row], probe: Sequence[Row], repeat: Sequence[Row] = (), *, seed: int = 0
) -> dict[str, Any]:
    """Accuracy lost under a probe, as rows of `Difference`, beside what repeating the own run
    loses.

    Returns:
        "all" and "tool" (only questions with a crop), and with `repeat` also "base_all" and
        "base_tool".
    """
    differences = {
        "all": accuracy_drop(own, probe, seed=seed),
        "tool": accuracy_drop(own, probe, only_tool=True, seed=seed),
    }
    if repeat:
        differences["base_all"] = accuracy_drop(own, repeat, seed=seed)
        differences["base_tool"] = accuracy_drop(own, repeat, only_tool=True, seed=seed)
    return {name: difference.as_row() for name, difference in differences.items()}
