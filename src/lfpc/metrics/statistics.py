"""Intervals and tests for right-or-wrong answers to questions.

Values about one picture (several questions, rotations of one, repeats with other seeds) are one
cluster: they are not independent evidence. Intervals are at 95 % and generalise to other pictures
of the same kind; where `seeds` names several training runs, to other runs too. Functions import
`scipy.stats` when called, because it loads slowly.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt
from typing import Any

import numpy as np

from lfpc.metrics.power import smallest_difference
from lfpc.metrics.resampling import (
    Interval,
    bootstrap_interval,
    by_cluster,
    crossed_bootstrap,
    several,
    sign_flip_p,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """mean(a - b) of paired values, with its interval and the p-value of "no difference": over
    pictures, and over training seeds if there are several.
    """

    delta: float
    low: float
    high: float
    p: float
    n: int
    """Number of pairs."""
    clusters: int
    """Number of pictures. Below 2 the interval is infinite and p is 1: one picture is no evidence
    about others."""
    smallest: float = inf
    """The smallest true difference that these pairs show with 80 % power; see
    `lfpc.metrics.power`."""
    seeds: int = 1
    """Number of training seeds."""

    def as_row(self) -> dict[str, Any]:
        """The fields for JSON, with None for infinity and NaN; "seeds" if there are several."""
        values = {
            "delta": self.delta,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "smallest": self.smallest,
        }
        return {
            **{k: v if isfinite(v) else None for k, v in values.items()},
            "n": self.n,
            "clusters": self.clusters,
            **({"seeds": self.seeds} if self.seeds > 1 else {}),
        }


def wilson(k: int, n: int) -> Interval:
    """Wilson score interval of a proportion k / n; (0, 1) when n is 0.

        (p + z^2 / 2n  +-  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
        p = k / n,   z = 1.96

    Source: Wilson 1927.
    """
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def clustered_se(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    seeds: Sequence[Hashable] | None = None,
) -> float:
    """Standard error of the mean when values of a cluster are dependent, and those of a seed.

        SE = sqrt(V(clusters))
        SE = sqrt(V(clusters) + V(seeds) - V(cells))     of several seeds, at least the one above
        V(groups) = G / (G - 1) * sum_g (sum_{i in g} (x_i - mean))^2 / n^2

    With one value per cluster this is the usual std / sqrt(n). Infinite below two clusters.

    Args:
        values: x, n numbers.
        clusters: the cluster of each value, G distinct ones.
        seeds: the training seed of each value; None: one training run. A cell is the values of one
            cluster under one seed.
    Source: Liang and Zeger 1986; Miller 2024 (arXiv 2411.00640) for evaluations of language models;
    Cameron, Gelbach and Miller 2011 for clusters that cross.
    """
    x = np.asarray(values, dtype=float)

    def variance(groups: Sequence[Hashable]) -> float:
        sums, _ = by_cluster(x - x.mean() if len(x) else x, groups)
        n = len(sums)
        return inf if n < 2 else n / (n - 1) * float((sums**2).sum()) / len(x) ** 2

    over_clusters = variance(clusters)
    if over_clusters == inf or not (runs := several(seeds)):
        return sqrt(over_clusters)
    cells = list(zip(clusters, runs, strict=True))
    return sqrt(max(over_clusters, over_clusters + variance(runs) - variance(cells)))


def effective_size(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    seeds: Sequence[Hashable] | None = None,
) -> float:
    """Effective sample size: the number of independent values that estimate the mean as precisely,
    at most n.

        n_eff = n / max(1, SE_clustered^2 / SE_independent^2)

    Without variance n_eff is the number of clusters; without values it is 0. Source: Korn and
    Graubard 1998.
    """
    n = len(values)
    groups = len(set(clusters))
    independent = float(np.var(values, ddof=1)) / n if n > 1 else 0.0
    if groups < 2 or independent == 0:
        return groups
    return n / max(1.0, clustered_se(values, clusters, seeds) ** 2 / independent)


def clustered_wilson(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    seeds: Sequence[Hashable] | None = None,
) -> Interval:
    """Wilson interval of a mean of clustered zeros and ones, over training seeds if there are
    several.

    The Wilson interval of p at n = `effective_size`. With one value per cluster this is `wilson`.
    Source: Korn and Graubard 1998.
    """
    if len(values) == 0:
        return 0.0, 1.0
    from scipy.stats import norm

    p = float(np.mean(values))
    size = effective_size(values, clusters, seeds)
    z = float(norm.ppf(0.975))
    centre = p + z * z / (2 * size)
    spread = z * sqrt(p * (1 - p) / size + z * z / (4 * size * size))
    return max(0.0, (centre - spread) / (1 + z * z / size)), min(
        1.0, (centre + spread) / (1 + z * z / size)
    )


def newcombe_interval(a: Sequence[float], b: Sequence[float], size: float) -> Interval:
    """Interval of mean(a - b) of paired zeros and ones, by squaring and adding Wilson intervals.

        low  = d - sqrt(l_a^2 - 2 phi l_a u_b + u_b^2)       l: mean - low, u: high - mean
        high = d + sqrt(u_a^2 - 2 phi u_a l_b + l_b^2)       of each Wilson interval
        phi  = the correlation of a and b, continuity corrected; 0 where a or b is constant

    Unlike a bootstrap it has width where a and b never disagree.

    Args:
        a, b: verdicts on the same questions.
        size: number of independent pairs.
    Source: Newcombe 1998 (paired proportions), method 10.
    """
    from scipy.stats import norm

    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    z = float(norm.ppf(0.975))

    def ends(p: float) -> Interval:
        """(mean - low, high - mean)."""
        centre = (p + z * z / (2 * size)) / (1 + z * z / size)
        spread = z * sqrt(p * (1 - p) / size + z * z / (4 * size * size)) / (1 + z * z / size)
        return p - centre + spread, centre + spread - p

    p, q = float(x.mean()), float(y.mean())
    (low_a, up_a), (low_b, up_b) = ends(p), ends(q)
    both = float((x * y).mean())
    excess = both - p * q  # (n11 n00 - n10 n01) / n^2
    corrected = max(0.0, excess - 1 / (2 * size)) if excess > 0 else excess
    product = p * (1 - p) * q * (1 - q)
    phi = corrected / sqrt(product) if product else 0.0
    low = p - q - sqrt(max(0.0, low_a**2 - 2 * phi * low_a * up_b + up_b**2))
    high = p - q + sqrt(max(0.0, up_a**2 - 2 * phi * up_a * low_b + low_b**2))
    return max(-1.0, low), min(1.0, high)


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    seeds: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """mean(a - b) with the cluster bootstrap interval and the sign-flip p-value; of several
    training seeds the interval of the `crossed_bootstrap`, and the larger of both p-values.

    Verdicts whose differences are all equal have the `newcombe_interval` in place of a bootstrap
    of width 0: eight questions without a change do not show that none would change.

    Args:
        a, b: values of the same questions under two conditions, in the same order.
        clusters: the picture of each question; None: each question is its own cluster.
        seeds: the training seed of each pair; None: one training run.
        resamples: number of resamples, of the bootstrap and of the permutation test.
        seed: seed of both.
    Raises:
        ValueError: lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"paired values need two lists of one length, got {len(a)} and {len(b)}")
    d = (np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).tolist()
    names: Sequence[Hashable] = range(len(d)) if clusters is None else clusters
    groups = len(set(names))
    if groups < 2:
        return Difference(float(np.mean(d)) if d else nan, -inf, inf, 1.0, len(d), groups)
    p = sign_flip_p(d, names, resamples=resamples, seed=seed)
    if runs := several(seeds):
        low, high, over_seeds = crossed_bootstrap(d, names, runs, resamples=resamples, seed=seed)
        p = max(p, over_seeds)  # a bootstrap alone takes two questions that agree for proof
    else:
        low, high = bootstrap_interval(d, names, resamples=resamples, seed=seed)
    size = effective_size(d, names, runs)
    verdicts = {-1.0, 0.0, 1.0}.issuperset(d)
    if len(set(d)) == 1 and {0.0, 1.0}.issuperset([*a, *b]):
        low, high = newcombe_interval(a, b, size)
    steps = [abs(one) for one in d if one]
    spread = (
        {"discordance": float(np.mean(np.square(d)))}
        if verdicts
        else {"sd": float(np.std(d, ddof=1)), "step": min(steps)}
    )
    return Difference(
        float(np.mean(d)),
        low,
        high,
        p,
        len(d),
        groups,
        smallest_difference(size, **spread),
        len(set(runs or (0,))),
    )


def p_text(p: float) -> str:
    """A p-value to three decimals, "< 0.001" below."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Exact two-sided McNemar p-value of two lists of verdicts on the same independent questions.

        p = P(|X - n/2| >= |n10 - n/2|),   X ~ Binomial(n10 + n01, 1/2)

    n10, n01: questions that only a, only b got right; 1 where they never disagree.
    """
    from scipy.stats import binomtest

    only_a = sum(bool(x and not y) for x, y in zip(a, b, strict=True))
    only_b = sum(bool(y and not x) for x, y in zip(a, b, strict=True))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple tests, in the given order.

        p'_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)),   p_(1) <= ... <= p_(m)

    Source: Holm 1979.
    """
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted
