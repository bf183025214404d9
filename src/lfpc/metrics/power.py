"""What a number of paired answers can show."""

from math import inf, isfinite, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lfpc.metrics.statistics import Difference


def smallest_difference(
    n: float,
    *,
    discordance: float | None = None,
    sd: float | None = None,
    step: float = 0.0,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float:
    """The smallest true difference that `n` pairs show with probability `power`, tested at `alpha`
    (two-sided).

        of means:     delta = max((z_a + z_b) sd / sqrt(n), s^2 step)
        of verdicts:  n delta^2 = (z_a sqrt(psi) + z_b sqrt(psi - delta^2))^2, solved for delta:
                      delta = s max(sqrt(psi), s)
                      s = (z_a sqrt(n) + z_b sqrt(n + z_b^2 - z_a^2)) / (n + z_b^2)

    The max holds because at least delta of the verdicts, or delta / step of the means, must change:
    a few equal differences show no small ones. Normal approximation; infinite below n = 6, because
    five differences are never significant.

    Args:
        n: number of independent pairs; for clustered pairs their `effective_size`.
        discordance: psi, share of pairs whose two verdicts differ, in [0, 1]. Give this or `sd`.
        sd: standard deviation of the paired differences.
        step: the smallest difference of a pair that is not 0, such as 1/k of k averaged verdicts.
        power: z_b is its normal quantile.
        alpha: z_a is the normal quantile of 1 - alpha / 2.
    Raises:
        ValueError: `discordance` and `sd` are both given, or neither.
    Source: Connor 1987 (paired verdicts).
    """
    if (discordance is None) == (sd is None):
        raise ValueError(
            "the smallest difference needs either the discordance of verdicts or the sd of "
            "differences"
        )
    from scipy.stats import norm

    z_a = float(norm.ppf(1 - alpha / 2))
    z_b = float(norm.ppf(power))
    if n < 6:
        return inf
    s = (z_a * sqrt(n) + z_b * sqrt(n + z_b**2 - z_a**2)) / (n + z_b**2)
    if sd is not None:
        return max((z_a + z_b) * sd / sqrt(n), s * s * step)
    return s * max(sqrt(discordance or 0.0), s)


def power_line(difference: "Difference", *, nats: bool = False) -> str:
    """A sentence with the smallest difference that these pairs can show, in percentage points or
    in nats.
    """
    runs = f" under {difference.seeds} training seeds" if difference.seeds > 1 else ""
    rows = f"{difference.n} paired answers about {difference.clusters} pictures{runs}"
    if not isfinite(difference.smallest) or (difference.smallest > 1 and not nats):
        return f"{rows} are too few to show any difference with 80 % power"
    least = f"{difference.smallest:.2f} nats" if nats else f"{100 * difference.smallest:.1f} points"
    shown = f"{rows} show a difference of {least} or more with 80 % power (two-sided, 5 %)"
    return f"{shown}; smaller ones may go unseen"
