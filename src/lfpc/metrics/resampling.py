"""Intervals and tests by resampling clusters and training seeds; see `lfpc.metrics.statistics`."""

from collections.abc import Hashable, Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]
_CHUNK = 1_000
"""Resamples drawn at a time, which bounds memory at 8 kB per cluster."""


def by_cluster(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """(sum, count) of `values` in each cluster, each of shape (G,)."""
    if len(clusters) != len(values):
        raise ValueError(
            f"{len(values)} values have {len(clusters)} cluster names; each value needs one"
        )
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
    sums: Floats = np.bincount(index, values, len(numbers)).astype(np.float64)
    return sums, np.bincount(index, minlength=len(numbers)).astype(np.float64)


def several(seeds: Sequence[Hashable] | None) -> Sequence[Hashable] | None:
    """`seeds`, if there are several."""
    return seeds if seeds is not None and len(set(seeds)) > 1 else None


def bootstrap_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean over resampled clusters.

        mean* = sum_c w_c S_c / sum_c w_c m_c,   w ~ Multinomial(G, 1/G),   [2.5 %, 97.5 %] of mean*

    S_c, m_c: sum and number of the values in cluster c. Infinite below two clusters; of zero width
    without variance. Source: Efron 1979; clusters as the unit, Field and Welsh 2007.
    """
    x = np.asarray(values, dtype=float)
    clustered = np.stack(by_cluster(x, range(len(x)) if clusters is None else clusters), axis=1)
    groups = len(clustered)
    if groups < 2:
        return -inf, inf
    kinds, times = np.unique(
        clustered, axis=0, return_counts=True
    )  # equal clusters are drawn together: the same law, far fewer draws
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, _CHUNK):
        drawn = rng.multinomial(groups, times / groups, size=min(_CHUNK, resamples - start)) @ kinds
        means[start : start + len(drawn)] = drawn[:, 0] / drawn[:, 1]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def crossed_bootstrap(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    seeds: Sequence[Hashable],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Percentile interval of the mean over resampled clusters and resampled training seeds, and the
    p-value of "the mean is 0" at which that interval would end at 0.

        mean* = sum_cs w_c v_s S_cs / sum_cs w_c v_s m_cs,   w, v multinomial, independent
        p     = min(1, 2 (1 + min(#{mean* <= 0}, #{mean* >= 0})) / (1 + R)),   R = resamples

    S_cs, m_cs: sum and number of the values of cluster c under seed s. With few seeds it is rough:
    three have ten distinct resamples. Infinite, and p = 1, below two clusters or two seeds.

    Returns:
        (low, high, p).
    Source: Owen 2007, the pigeonhole bootstrap; Davison and Hinkley 1997 for the added ones.
    """
    x = np.asarray(values, dtype=float)
    rows = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    columns = {name: i for i, name in enumerate(dict.fromkeys(seeds))}
    if len(rows) < 2 or len(columns) < 2:
        return -inf, inf, 1.0
    place = ([rows[name] for name in clusters], [columns[name] for name in seeds])
    sums = np.zeros((len(rows), len(columns)))
    counts = np.zeros_like(sums)
    np.add.at(sums, place, x)
    np.add.at(counts, place, 1.0)
    rng = np.random.default_rng(seed)
    totals = np.empty((resamples, 2))
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        pictures = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size)
        runs = rng.multinomial(len(columns), np.full(len(columns), 1 / len(columns)), size)
        totals[start : start + size, 0] = (pictures @ sums * runs).sum(1)
        totals[start : start + size, 1] = (pictures @ counts * runs).sum(1)
    totals = totals[totals[:, 1] > 0]  # the drawn clusters may have no value under the drawn seeds
    means = totals[:, 0] / totals[:, 1]
    low, high = np.quantile(means, (0.025, 0.975))
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return float(low), float(high), min(1.0, 2 * (1 + beyond) / (1 + len(means)))


def mean_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    seeds: Sequence[Hashable] | None = None,
) -> Interval:
    """Bootstrap interval of a mean over clusters, and over training seeds if there are several."""
    if runs := several(seeds):
        return crossed_bootstrap(values, clusters, runs)[:2]
    return bootstrap_interval(values, clusters)


def sign_flip_p(
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """p-value of "the differences are symmetric about 0", whole clusters flipped together.

        p = (1 + #{|sum_c e_c S_c| >= |sum_c S_c|}) / (1 + R),   e_c = +-1 at random, R = resamples

    Source: Fisher 1935; the added ones, Phipson and Smyth 2010.
    """
    x = np.asarray(values, dtype=float)
    sums, _ = by_cluster(x, range(len(x)) if clusters is None else clusters)
    if not sums.any():
        return 1.0
    sizes, times = np.unique(
        np.abs(sums[sums != 0]), return_counts=True
    )  # clusters of one size flip together, as a binomial number
    rng = np.random.default_rng(seed)
    seen = abs(sums.sum()) - 1e-12
    extreme = 0
    for start in range(0, resamples, _CHUNK):
        positive = rng.binomial(times, 0.5, size=(min(_CHUNK, resamples - start), len(sizes)))
        extreme += int((np.abs((2 * positive - times) @ sizes) >= seen).sum())
    return (1 + extreme) / (1 + resamples)
