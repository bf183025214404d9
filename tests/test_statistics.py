from math import inf, isnan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from lfpc.metrics.power import power_line, smallest_difference
from lfpc.metrics.resampling import bootstrap_interval, crossed_bootstrap, sign_flip_p
from lfpc.metrics.statistics import (
    clustered_se,
    clustered_wilson,
    effective_size,
    holm,
    mcnemar,
    newcombe_interval,
    p_text,
    paired_difference,
    wilson,
)


def test_wilson_interval_of_half_of_ten():
    # z = 1.96: centre (0.5 + 3.8415/20) / 1.38415 = 0.5; spread 1.96 sqrt(0.025 + 3.8415/400) /
    # 1.38415 = 0.26341
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)


def test_wilson_interval_of_no_success_starts_at_zero_and_of_nothing_is_whole():
    low, high = wilson(0, 10)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(3.8415 / 13.8415, abs=1e-4)  # z^2 / (n + z^2)
    assert wilson(0, 0) == (0.0, 1.0)


def test_clustered_error_of_single_rows_is_the_usual_one():
    x = [1.0, 0.0, 1.0, 1.0]
    assert clustered_se(x, range(4)) == pytest.approx(np.std(x, ddof=1) / sqrt(4))


def test_clustered_error_of_two_pairs():
    # mean 1/2; cluster sums of x - mean: 1 and -1; sqrt(2 / 1 * (1 + 1)) / 4 = 1/2
    assert clustered_se([1, 1, 0, 0], ["a", "a", "b", "b"]) == pytest.approx(0.5)
    assert clustered_se([1, 1], ["a", "a"]) == inf


@given(st.lists(st.booleans(), min_size=2, max_size=40))
def test_clustered_wilson_of_single_rows_is_wilson(verdicts):
    expected = wilson(sum(verdicts), len(verdicts))
    assert clustered_wilson(verdicts, range(len(verdicts))) == pytest.approx(expected, abs=1e-9)


def test_repeating_every_question_does_not_narrow_the_interval():
    once = [True] * 30 + [False] * 20
    thrice = once * 3
    names = list(range(50)) * 3
    # three equal rows a question: SE_clustered^2 = p q / (G - 1), so n_eff = 150 (G - 1) / 149, a
    # little less than G
    low, high = clustered_wilson(thrice, names)
    narrow = wilson(90, 150)
    wide = wilson(30, 50)
    assert high - low == pytest.approx(wide[1] - wide[0], rel=0.01)
    assert high - low > 1.6 * (narrow[1] - narrow[0])
    assert clustered_wilson([True] * 9, [0, 1, 2] * 3) == pytest.approx(wilson(3, 3))


def test_bootstrap_interval_is_near_the_normal_one():
    x = np.random.default_rng(0).random(400)
    low, high = bootstrap_interval(x.tolist())
    half = 1.96 * x.std(ddof=1) / 20
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.004)


def test_sign_flips_of_five_equal_differences_are_extreme_in_two_of_32():
    p = sign_flip_p([1.0] * 5 + [0.0] * 20, resamples=50_000)
    assert p == pytest.approx(2 / 32, abs=0.005)


def test_paired_difference_of_two_lists():
    difference = paired_difference([1, 1, 1, 0], [0, 1, 0, 0])
    assert difference.delta == pytest.approx(0.5)
    assert difference.low <= 0.5 <= difference.high
    assert (difference.n, difference.clusters) == (4, 4)
    assert difference == paired_difference(
        [1, 1, 1, 0], [0, 1, 0, 0]
    )  # the same seed gives the same interval


def test_equal_lists_do_not_differ():
    difference = paired_difference([1, 0, 1], [1, 0, 1])
    assert (difference.delta, difference.p) == (0, 1)
    assert difference.low == -difference.high < -0.2  # three equal pairs are no proof
    lengths = paired_difference([0.5, 2.5], [0.5, 2.5])
    assert (lengths.delta, lengths.low, lengths.high, lengths.p) == (0, 0, 0, 1)


def verdicts(both, only_a, only_b, neither):
    counts = (both, only_a, only_b, neither)
    pairs = zip([(1, 1), (1, 0), (0, 1), (0, 0)], counts, strict=True)
    return zip(*[pair for pair, count in pairs for _ in range(count)], strict=True)


def test_newcombe_interval_of_the_published_examples():
    a, b = verdicts(36, 12, 2, 0)
    assert newcombe_interval(a, b, 50) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    a, b = verdicts(20, 12, 2, 16)
    assert newcombe_interval(a, b, 50) == pytest.approx((0.0562, 0.3292), abs=5e-5)


def test_newcombe_interval_has_width_where_no_pair_disagrees():
    # phi = (4 * 4 - 8 / 2) / 16 = 3 / 4, and l = u = 0.28478 of wilson(4, 8): l sqrt(2 - 2 phi)
    a, b = verdicts(4, 0, 0, 4)
    assert newcombe_interval(a, b, 8) == pytest.approx((-0.20137, 0.20137), abs=1e-5)
    # no correlation where all are right: l of wilson(8, 8) is z^2 / (n + z^2) = 0.32441
    assert newcombe_interval([1] * 8, [1] * 8, 8) == pytest.approx((-0.32441, 0.32441), abs=1e-5)
    low, high = newcombe_interval([1] * 8, [0] * 8, 8)
    assert (low, high) == (pytest.approx(1 - 0.32441 * sqrt(2), abs=1e-4), 1.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_newcombe_interval_holds_the_difference_and_turns_with_its_sides(pairs):
    a, b = zip(*pairs, strict=True)
    low, high = newcombe_interval(a, b, len(pairs))
    assert -1 <= low <= np.mean(a) - np.mean(b) + 1e-9
    assert np.mean(a) - np.mean(b) - 1e-9 <= high <= 1
    assert newcombe_interval(b, a, len(pairs)) == pytest.approx((-high, -low), abs=1e-9)


def test_one_question_is_no_evidence_about_others():
    difference = paired_difference([1, 1], [0, 0], ["q", "q"])
    assert (difference.delta, difference.low, difference.high, difference.p) == (1, -inf, inf, 1)
    assert difference.as_row() == {
        "delta": 1,
        "low": None,
        "high": None,
        "p": 1,
        "smallest": None,
        "n": 2,
        "clusters": 1,
    }
    assert isnan(paired_difference([], []).delta)


def test_seeds_of_a_question_count_as_one_cluster():
    a = [1, 0, 1, 1, 0, 1, 1, 1] * 4
    b = [0, 0, 1, 0, 0, 1, 1, 0] * 4
    names = list(range(8)) * 4
    apart = paired_difference(a, b)
    together = paired_difference(a, b, names)
    assert together.delta == apart.delta
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    assert together.p > apart.p


def test_the_crossed_interval_covers_when_training_runs_differ():
    """Runs scatter by 4 points: an interval or a p over questions alone takes their scatter for an
    effect.
    """
    rng = np.random.default_rng(3)
    covered = {"questions": 0, "both": 0}
    kept = {"questions": 0, "both": 0}
    for i in range(60):
        values = rng.normal(0, 0.04, (1, 8)) + rng.normal(0, 0.3, (200, 8))
        names = np.repeat(np.arange(200), 8).tolist()
        runs = np.tile(np.arange(8), 200).tolist()
        flat = values.ravel().tolist()
        for over, seeds in (("questions", None), ("both", runs)):
            found = paired_difference(
                flat, [0.0] * len(flat), names, seeds=seeds, resamples=300, seed=i
            )
            covered[over] += found.low <= 0 <= found.high
            kept[over] += found.p >= 0.05
    assert covered["questions"] < 40
    assert kept["questions"] < 40
    assert 51 <= covered["both"] <= 60
    assert 51 <= kept["both"] <= 60


def test_p_over_training_runs_is_small_only_where_their_interval_excludes_0():
    """Seven runs gain 20 of 100 questions, each run others, and one loses all: +5 points, which one
    more run like the last would reverse.
    """
    gains = np.zeros((8, 100))
    for run in range(7):
        gains[run, (20 * run + np.arange(20)) % 100] = 1
    gains[7] = -1
    names = list(range(100)) * 8
    runs = [run for run in range(8) for _ in range(100)]
    flat = gains.ravel().tolist()
    one = paired_difference(flat, [0.0] * 800, names, seeds=runs)
    assert one.delta == pytest.approx(0.05)
    assert one.low < 0 < one.high
    assert one.p > 0.3
    assert one.as_row()["seeds"] == 8
    alone = paired_difference(flat, [0.0] * 800, names)
    assert alone.p < 0.01
    assert one.smallest > 5 * alone.smallest
    assert "800 paired answers about 100 pictures under 8 training seeds show" in power_line(one)


def test_few_questions_that_agree_under_every_seed_are_no_proof():
    # four questions can be flipped in 16 ways, 2 of which are as extreme: p is about 2 / 16
    few = paired_difference([1.0] * 16, [0.0] * 16, [0, 1, 2, 3] * 4, seeds=[0] * 8 + [1] * 8)
    assert few.p == pytest.approx(1 / 8, abs=0.02)


def test_error_of_crossed_clusters_and_seeds():
    # picture:  p  p  q  q     deviations from the mean 0.5: +-0.5, sums by picture 0 and 0, by
    # seed:     0  1  0  1     seed +1 and -1; V(seeds) = 2 (1 + 1) / 4^2 = 1/4,
    # right:    1  0  1  0     V(cells) = 4/3 * 4 * 0.25 / 4^2 = 1/12: SE^2 = 0 + 1/4 - 1/12
    assert clustered_se([1, 0, 1, 0], "ppqq", [0, 1, 0, 1]) == pytest.approx(sqrt(1 / 6))
    assert clustered_se([1, 0, 1, 0], "ppqq") == 0
    # seeds that agree take nothing from the error over pictures
    assert clustered_se([1, 1, 0, 0], "ppqq", [0, 1, 0, 1]) == clustered_se([1, 1, 0, 0], "ppqq")
    narrow = clustered_wilson([1, 0] * 50, list(range(50)) * 2)
    wide = clustered_wilson([1] * 50 + [0] * 50, list(range(50)) * 2, [0] * 50 + [1] * 50)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_runs_that_agree_leave_the_interval_over_questions():
    names = list(range(40)) * 3
    verdicts = [1, 0, 0, 1, 0] * 24
    runs = [0] * 40 + [1] * 40 + [2] * 40
    low, high, _ = crossed_bootstrap(verdicts, names, runs)
    assert (low, high) == pytest.approx(bootstrap_interval(verdicts, names), abs=0.02)
    one = paired_difference(verdicts[:40], [0] * 40, names[:40], seeds=[0] * 40)
    assert one.seeds == 1
    assert "seeds" not in one.as_row()
    assert crossed_bootstrap([1, 0], ["q", "q"], [0, 1]) == (-inf, inf, 1.0)


def test_p_values_are_uniform_and_intervals_cover_when_nothing_differs():
    rng = np.random.default_rng(1)
    differences = []
    for i in range(400):
        ability = np.repeat(rng.random(60), 3)  # 60 questions of three seeds each
        a, b = (rng.random(180) < ability for _ in range(2))
        differences.append(
            paired_difference(
                a.tolist(), b.tolist(), np.repeat(range(60), 3).tolist(), resamples=400, seed=i
            )
        )
    p = np.array([d.p for d in differences])
    # binomial spread of 400 draws: 2 sd are 2.2 points at 5 %, 5 points at 50 %
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert (p < 0.5).mean() == pytest.approx(0.5, abs=0.07)
    covered = np.mean([d.low <= 0 <= d.high for d in differences])
    assert covered == pytest.approx(0.95, abs=0.035)


def test_mcnemar_of_twelve_against_four():
    a = [True] * 12 + [False] * 4 + [True] * 175
    b = [False] * 12 + [True] * 4 + [True] * 175
    # 2 * sum_{i<=4} C(16, i) / 2^16 = 2 * (1 + 16 + 120 + 560 + 1820) / 65536
    assert mcnemar(a, b) == pytest.approx(2 * 2517 / 65536)
    assert mcnemar(a, a) == 1


def test_holm_multiplies_by_what_is_left_and_never_falls():
    # sorted 0.01, 0.03, 0.04: times 3, 2, 1 = 0.03, 0.06, 0.04 -> 0.06
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


def test_lists_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="one length, got 2 and 1"):
        paired_difference([1, 0], [1])
    with pytest.raises(ValueError, match="2 values have 1 cluster"):
        clustered_se([1, 0], ["a"])


def test_clustered_error_of_unequal_clusters_is_the_one_of_regression_software():
    # statsmodels 0.15: OLS(x, 1).fit(cov_type="cluster", cov_kwds={"groups": names}).bse =
    # 0.07302967
    x = [1, 0, 1, 1, 0, 0, 1, 0, 1, 1]
    names = list("aaabbccccd")
    assert clustered_se(x, names) == pytest.approx(0.07302967, abs=1e-7)


def test_effective_size_lies_between_clusters_and_rows():
    assert effective_size([1, 0, 1, 1], range(4)) == pytest.approx(4)
    # every row three times: SE_clustered^2 = p q / (G - 1), SE_independent^2 = p q / (n - 1): n_eff
    # = n (G - 1) / (n - 1)
    assert effective_size([1] * 90 + [0] * 60, [i // 3 for i in range(150)]) == pytest.approx(
        150 * 49 / 149
    )
    assert effective_size([1, 1, 1, 1], "aabb") == 2
    assert effective_size([], []) == 0


def exact_power(n: int, psi: float, delta: float) -> float:
    """Power of the exact McNemar test at 5 %: sum over the number m of changed verdicts and over
    how many of them fell."""
    power = 0.0
    for m in range(n + 1):
        fell = np.arange(m + 1)
        rejects = 2 * binom.cdf(np.minimum(fell, m - fell), m, 0.5) <= 0.05
        power += binom.pmf(m, n, psi) * binom.pmf(fell, m, (psi + delta) / (2 * psi))[rejects].sum()
    return power


@pytest.mark.parametrize(("n", "psi"), [(150, 0.15), (400, 0.1), (800, 0.05), (191, 0.3)])
def test_smallest_drop_of_verdicts_has_the_promised_power_in_the_exact_test(n, psi):
    # the formula is that of the test without continuity correction, the exact test is a little more
    # careful
    delta = smallest_difference(n, discordance=psi)
    assert exact_power(n, psi, delta) == pytest.approx(0.8, abs=0.06)
    assert exact_power(n, psi, 0.7 * delta) < 0.6


def test_smallest_drop_solves_its_equation():
    n = 200
    psi = 0.2
    delta = smallest_difference(200, discordance=0.2)
    assert sqrt(n) * delta == pytest.approx(
        1.959964 * sqrt(psi) + 0.841621 * sqrt(psi - delta**2), rel=1e-5
    )
    assert smallest_difference(100, sd=0.5) == pytest.approx(
        2.801585 * 0.5 / 10, rel=1e-6
    )  # 1.959964 + 0.841621


def test_few_changed_verdicts_do_not_promise_a_drop_smaller_than_they_allow():
    # a drop of delta changes delta of the verdicts at least: with psi = delta, n delta^2 = (z_a +
    # z_b sqrt(1 - delta))^2 delta
    delta = smallest_difference(100, discordance=0.0)
    assert 100 * delta == pytest.approx((1.959964 + 0.841621 * sqrt(1 - delta)) ** 2, rel=1e-5)
    assert delta == smallest_difference(100, discordance=0.01)
    assert smallest_difference(5, discordance=0.5) == smallest_difference(1, sd=1) == inf


@given(st.floats(6, 5000), st.floats(0, 1))
def test_more_rows_show_smaller_drops_and_more_changes_hide_them(n, psi):
    here = smallest_difference(n, discordance=psi)
    assert smallest_difference(2 * n, discordance=psi) < here
    assert smallest_difference(n, discordance=min(1, psi + 0.1)) >= here


@pytest.mark.parametrize("given", [{}, {"discordance": 0.1, "sd": 1.0}])
def test_smallest_drop_needs_one_measure_of_spread(given):
    with pytest.raises(ValueError, match="either"):
        smallest_difference(100, **given)


def test_a_difference_names_what_it_could_have_shown():
    a = [1] * 20 + [0] * 80
    b = [0] * 12 + [1] * 8 + [1] * 2 + [0] * 78
    apart = paired_difference(a, b)
    assert apart.smallest == pytest.approx(smallest_difference(100, discordance=0.14))
    together = paired_difference(a * 2, b * 2, [*range(100)] * 2)
    assert together.smallest == pytest.approx(
        apart.smallest, rel=0.01
    )  # asking twice shows no more
    spread = {"sd": 0.125 * sqrt(10 / 9), "step": 0.25}
    assert paired_difference([0.5] * 10, [0.25, 0.0] * 5).smallest == pytest.approx(
        smallest_difference(10, **spread)
    )
    assert power_line(apart) == (
        f"100 paired answers about 100 pictures show a difference of "
        f"{100 * apart.smallest:.1f} points or more with 80 % power "
        "(two-sided, 5 %); smaller ones may go unseen"
    )
    assert power_line(paired_difference([1, 0], [0, 0])).endswith(
        "too few to show any difference with 80 % power"
    )


def test_equal_differences_of_averaged_verdicts_do_not_show_every_difference():
    # of 32 repeats each question loses one: at least delta * 32 of the 8 questions must lose one
    found = paired_difference([1.0] * 8, [31 / 32] * 8).smallest
    assert found == pytest.approx(smallest_difference(8, discordance=0.0) / 32)
    assert paired_difference([0.5, 0.25] * 2, [0.25, 0.25] * 2).smallest == inf
    assert smallest_difference(5.5, sd=0.1) == inf


def test_a_p_value_is_never_zero():
    assert (p_text(0.0), p_text(0.00099), p_text(0.001), p_text(1.0)) == (
        "< 0.001",
        "< 0.001",
        "0.001",
        "1.000",
    )


def test_normal_sample_mean_has_the_promised_power():
    sd = 0.4
    n = 80
    delta = smallest_difference(n, sd=sd)
    rng = np.random.default_rng(0)
    z = rng.normal(delta, sd, (4000, n)).mean(1) / (sd / sqrt(n))
    assert (np.abs(z) > norm.ppf(0.975)).mean() == pytest.approx(0.8, abs=0.02)


def test_clustered_wilson_intervals_cover_when_pictures_differ():
    rng = np.random.default_rng(2)
    covered = 0
    names = np.repeat(range(60), 4).tolist()
    for _ in range(300):
        ability = np.repeat(rng.beta(1.4, 0.6, 60), 4)  # mean 0.7, pictures differ much
        low, high = clustered_wilson((rng.random(240) < ability).tolist(), names)
        covered += low <= 0.7 <= high
    assert covered / 300 == pytest.approx(0.95, abs=0.03)  # 2 sd of 300 draws are 2.5 points
