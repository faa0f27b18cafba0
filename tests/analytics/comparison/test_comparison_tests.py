"""Each test and effect size against an independent implementation, a closed form or a table worked by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.anova import AnovaRM
from statsmodels.stats.oneway import anova_oneway
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from ckptlake.analytics.comparison import (
    anova,
    block_anova,
    block_permutation,
    bootstrap_t,
    cliffs_delta,
    dunn,
    friedman,
    games_howell,
    hedges_g,
    kolmogorov_smirnov,
    kruskal,
    mann_whitney,
    nemenyi,
    one_sample_t,
    paired_hedges_g,
    paired_t,
    permutation_anova,
    permutation_test,
    posterior,
    ratio_of_means,
    sign_flip,
    tukey_hsd,
    vargha_delaney,
    welch_anova,
    welch_t,
    wilcoxon,
)
from ckptlake.analytics.comparison.effects import noncentrality_interval
from ckptlake.analytics.comparison.posterior import DifferencePosterior, MeanPosterior, spread
from ckptlake.errors import InvalidInputError, NotEnoughDataError

RNG = np.random.default_rng(0)
A, B, C = RNG.normal(3.0, 0.1, 7), RNG.normal(3.1, 0.3, 6), RNG.normal(3.3, 0.2, 9)
PAIRS = RNG.normal(3.0, 0.1, 6)
TIED_A, TIED_B = np.array([1.0, 2.0, 2.0, 3.0, 3.0]), np.array([2.0, 3.0, 4.0, 4.0])
values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6)
spaced = st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=5)


def welch_statistic(one: np.ndarray, other: np.ndarray) -> float:
    variance = one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other)
    apart = one.mean() - other.mean()
    if variance < 1e-12:
        return math.inf if abs(apart) > 1e-9 else 0.0
    return abs(apart) / math.sqrt(variance)


class TestTwoConfigurations:
    def test_welch(self) -> None:
        found, expected = welch_t(A, B, level=0.9), stats.ttest_ind(A, B, equal_var=False)
        assert (found.statistic, found.p_value, found.df) == pytest.approx(
            (expected.statistic, expected.pvalue, expected.df)
        )
        low, high = CompareMeans(DescrStatsW(A), DescrStatsW(B)).tconfint_diff(alpha=0.1, usevar="unequal")
        assert found.interval is not None
        assert (found.interval.low, found.interval.high) == pytest.approx((low, high))

    @pytest.mark.parametrize("alternative", ["less", "greater", "two-sided"])
    def test_one_sample(self, alternative: str) -> None:
        found = one_sample_t(A, against=3.05, alternative=alternative)  # type: ignore[arg-type]
        expected = stats.ttest_1samp(A, 3.05, alternative=alternative)
        assert found.p_value == pytest.approx(expected.pvalue)
        ends = expected.confidence_interval(0.95)
        assert found.interval is not None
        assert (found.interval.low, found.interval.high) == pytest.approx((ends.low, ends.high))

    def test_pairs(self) -> None:
        assert paired_t(PAIRS, B).p_value == pytest.approx(stats.ttest_rel(PAIRS, B).pvalue)
        assert wilcoxon(PAIRS, B).p_value == pytest.approx(stats.wilcoxon(PAIRS, B).pvalue)

    def test_ranks(self) -> None:
        assert mann_whitney(A, B).p_value == pytest.approx(stats.mannwhitneyu(A, B, method="exact").pvalue)
        tied = stats.mannwhitneyu(TIED_A, TIED_B, method="asymptotic").pvalue
        assert mann_whitney(TIED_A, TIED_B).p_value == pytest.approx(tied)
        assert kolmogorov_smirnov(A, B).p_value == pytest.approx(stats.ks_2samp(A, B).pvalue)

    @settings(max_examples=40, deadline=None)
    @given(spaced, spaced)
    def test_the_permutation_test_counts_every_arrangement(self, one: list[float], other: list[float]) -> None:
        together, n = np.array(one + other), len(one)
        observed = welch_statistic(np.array(one), np.array(other))
        far = [
            welch_statistic(together[list(taken)], np.delete(together, list(taken))) >= observed * (1 - 1e-9)
            for taken in itertools.combinations(range(len(together)), n)
        ]
        assert permutation_test(one, other).p_value == pytest.approx(np.mean(far))

    @settings(max_examples=40, deadline=None)
    @given(spaced)
    def test_sign_flips_count_every_sign(self, differences: list[float]) -> None:
        array = np.array(differences)
        sums = [float(np.dot(signs, array)) for signs in itertools.product((1, -1), repeat=len(array))]
        for alternative, far in (
            ("two-sided", np.abs(sums) >= abs(array.sum())),
            ("less", np.array(sums) <= array.sum()),
            ("greater", np.array(sums) >= array.sum()),
        ):
            found = sign_flip(array, alternative=alternative)  # type: ignore[arg-type]
            assert found.p_value == pytest.approx(np.mean(far))

    @pytest.mark.parametrize("n", [7, 30])
    @pytest.mark.parametrize("paired", [False, True])
    def test_an_inverted_test_refuses_what_lies_outside(self, n: int, paired: bool) -> None:
        rng = np.random.default_rng(n)
        one, other = rng.normal(size=n), rng.lognormal(size=n)

        def is_refused(shift: float) -> bool:
            found = sign_flip(one - other, against=shift) if paired else permutation_test(one - shift, other)
            assert found.p_value is not None
            return found.p_value < 1 - 0.95

        interval = (sign_flip(one - other) if paired else permutation_test(one, other)).interval
        assert interval is not None
        for end, outwards in ((interval.low, -1e-4), (interval.high, 1e-4)):
            assert not is_refused(end - outwards)
            assert is_refused(end + outwards)

    def test_drawn_arrangements_agree_with_all_of_them(self) -> None:
        one, other = RNG.normal(size=8), RNG.normal(0.8, 1.0, 8)  # 12,870 arrangements
        expected = stats.permutation_test(
            (one, other), welch_statistic, n_resamples=np.inf, alternative="greater"
        ).pvalue
        found = permutation_test(one, other)
        assert found.p_value == pytest.approx(expected, abs=0.01)
        assert found == permutation_test(one, other)
        assert found.p_value != permutation_test(one, other, seed=1).p_value

    @pytest.mark.parametrize("test", [permutation_test, welch_t])
    def test_units_do_not_matter(self, test: Callable[..., object]) -> None:
        found, scaled = test(A, B), test(1e6 * A + 5e6, 1e6 * B + 5e6)
        assert found.p_value == pytest.approx(scaled.p_value)  # type: ignore[attr-defined]
        assert found.interval.width * 1e6 == pytest.approx(scaled.interval.width, rel=1e-5)  # type: ignore[attr-defined]

    def test_the_bootstrap_agrees_with_t_for_many_normal_values(self) -> None:
        sample = np.random.default_rng(1).normal(0.2, 1.0, 200)
        assert bootstrap_t(sample).p_value == pytest.approx(stats.ttest_1samp(sample, 0).pvalue, abs=0.01)
        found, expected = bootstrap_t(sample).interval, stats.ttest_1samp(sample, 0).confidence_interval()
        assert found is not None
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


class TestManyConfigurations:
    def test_analyses_of_variance(self) -> None:
        assert anova([A, B, C]).p_value == pytest.approx(stats.f_oneway(A, B, C).pvalue)
        assert welch_anova([A, B, C]).p_value == pytest.approx(stats.f_oneway(A, B, C, equal_var=False).pvalue)
        assert kruskal([A, B, C]).p_value == pytest.approx(stats.kruskal(A, B, C).pvalue)
        assert permutation_anova([A, B, C]).statistic == pytest.approx(anova_oneway([A, B, C], use_var="bf").statistic)

    def test_the_permutation_of_two_is_the_permutation_test(self) -> None:
        assert permutation_anova([A, B]).p_value == pytest.approx(
            stats.permutation_test((A, B), welch_statistic, alternative="greater").pvalue, abs=0.02
        )

    def test_blocks(self) -> None:
        table = RNG.normal(size=(6, 4)) + np.arange(4) * 0.4
        import pandas as pd

        long = pd.DataFrame({"y": table.ravel(), "who": np.repeat(np.arange(6), 4), "what": np.tile(np.arange(4), 6)})
        expected = AnovaRM(long, "y", "who", ["what"]).fit().anova_table
        found = block_anova(table)
        assert found.statistic == pytest.approx(expected["F Value"].iloc[0])
        assert found.p_value == pytest.approx(expected["Pr > F"].iloc[0])
        assert block_permutation(table).p_value == pytest.approx(found.p_value, abs=0.02)

    def test_friedman(self) -> None:
        """By hand: mean ranks 1, 2.25, 2.75 of four blocks give chi-square 6.5, so F = 3 * 6.5 / 1.5 = 13."""
        found = friedman([[1, 2, 3], [1, 3, 2], [1, 2, 3], [1, 2, 3]])
        assert found.statistic == pytest.approx(13.0)
        assert found.p_value == pytest.approx(stats.f.sf(13.0, 2, 6))
        alike = friedman([[1, 2, 3]] * 4)
        assert (alike.statistic, alike.p_value) == (math.inf, pytest.approx((1 / 6) ** 3))

    @pytest.mark.parametrize(("kernel", "equal_var"), [(tukey_hsd, True), (games_howell, False)])
    def test_pairs_by_the_studentized_range(self, kernel: Callable[..., object], equal_var: bool) -> None:
        expected = stats.tukey_hsd(A, B, C, equal_var=equal_var)
        ends = expected.confidence_interval(0.9)
        for (i, j), found in kernel([A, B, C], level=0.9).items():  # type: ignore[attr-defined]
            assert found.p_value == pytest.approx(expected.pvalue[i, j], rel=1e-6)
            assert (found.interval.low, found.interval.high) == pytest.approx(
                (ends.low[i, j], ends.high[i, j]), rel=1e-4
            )

    def test_games_howell_by_hand(self) -> None:
        """Means 2, 3, 7 and variances 1, 1, 4 of three: q = 5 sqrt(2) / sqrt(5/3) with 50/17 degrees of freedom."""
        found = games_howell([[1, 2, 3], [2, 3, 4], [5, 7, 9]])[0, 2]
        assert found.df == pytest.approx((5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2))
        assert abs(found.statistic or 0.0) == pytest.approx(5 * math.sqrt(2) / math.sqrt(5 / 3))

    def test_dunn_by_hand(self) -> None:
        """Mean ranks 2, 5, 8 of nine: sigma = sqrt(9 * 10 / 12 * 2/3) = sqrt(5)."""
        found = dunn([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
        assert found[0, 1].statistic == pytest.approx(-3 / math.sqrt(5))
        assert found[0, 2].p_value == pytest.approx(2 * stats.norm.sf(6 / math.sqrt(5)))

    def test_dunn_with_ties_by_hand(self) -> None:
        """Ranks 1.5 1.5 3.5 | 3.5 5 6: one pair of 1s and one of 2s take 12 / (12 * 5) off 6 * 7 / 12."""
        found = dunn([[1, 1, 2], [2, 3, 4]])
        sigma = math.sqrt((6 * 7 / 12 - 12 / 60) * 2 / 3)
        assert found[0, 1].statistic == pytest.approx((6.5 / 3 - 14.5 / 3) / sigma)
        two = stats.kruskal([1, 1, 2], [2, 3, 4]).statistic
        assert (found[0, 1].statistic or 0.0) ** 2 == pytest.approx(two)

    def test_nemenyi_by_the_table(self) -> None:
        """Demšar (2006), table 5: q = 2.343, 2.728, 3.102 / sqrt(2)-scaled for k = 3, 5, 8 at 0.05."""
        for k, q in ((2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (8, 3.031), (10, 3.164)):
            blocks = RNG.normal(size=(14, k))
            _, critical = nemenyi(blocks)
            assert critical.difference == pytest.approx(q * math.sqrt(k * (k + 1) / (6 * 14)), rel=5e-4)
            assert critical.mean_ranks.sum() == pytest.approx(k * (k + 1) / 2)

    def test_the_critical_difference_is_where_p_is_alpha(self) -> None:
        blocks = np.array([[1, 2, 3], [1, 3, 2], [1, 2, 3], [1, 2, 3]])
        pairs, critical = nemenyi(blocks)
        for (i, j), found in pairs.items():
            apart = abs(critical.mean_ranks[i] - critical.mean_ranks[j])
            assert found.p_value is not None
            assert (found.p_value < 0.05) == (apart > critical.difference)


class TestEffectSizes:
    @settings(max_examples=50, deadline=None)
    @given(values, values)
    def test_a12_counts_pairs(self, one: list[float], other: list[float]) -> None:
        won = np.mean([(a > b) + (a == b) / 2 for a in one for b in other])
        found = vargha_delaney(one, other)
        assert found.value == pytest.approx(won)
        assert found.interval is not None
        assert found.value in found.interval
        assert found.interval.width > 0.05
        assert cliffs_delta(one, other).value == pytest.approx(2 * won - 1)

    def test_hedges_g_by_hand(self) -> None:
        """d = -1 / sqrt(5/3) with 6 degrees of freedom, times gamma(3) / (sqrt(3) gamma(2.5))."""
        found = hedges_g([1, 2, 3, 4], [2, 3, 4, 5])
        assert found.value == pytest.approx(-1 / math.sqrt(5 / 3) * 2 / (math.sqrt(3) * math.gamma(2.5)))
        assert (found.n, found.none) == (8, 0.0)

    @pytest.mark.parametrize("t", [-2.0, 0.0, 1.5, 40.0])
    @pytest.mark.parametrize("df", [1, 4, 60])
    def test_noncentralities_are_where_the_tails_are(self, t: float, df: int) -> None:
        low, high = noncentrality_interval(t, df, 0.9)
        assert stats.nct.sf(t, df, low) == pytest.approx(0.05, rel=1e-4)
        assert stats.nct.cdf(t, df, high) == pytest.approx(0.05, rel=1e-4)

    def test_a_huge_effect_has_an_interval(self) -> None:
        found = hedges_g(1e6 + np.arange(4.0), np.arange(4.0))
        assert found.interval is not None
        assert 0 < found.interval.low < found.value < found.interval.high < math.inf

    def test_the_ratio_follows_the_difference_of_logarithms_where_it_should(self) -> None:
        one, other = 10 + 0.01 * A, 20 + 0.01 * B
        found = ratio_of_means(one, other)
        logs = welch_t(np.log(one), np.log(other))
        assert found.interval is not None
        assert logs.interval is not None
        assert (found.interval.low, found.interval.high) == pytest.approx(
            (math.exp(logs.interval.low), math.exp(logs.interval.high)), rel=1e-6
        )

    def test_a_ratio_to_what_may_be_zero_has_no_interval(self) -> None:
        found = ratio_of_means([5.0, 6.0, 7.0], [-1.0, 0.5, 1.0])
        assert found.interval is None
        assert "cannot be told from zero" in found.notes[0]
        with pytest.raises(InvalidInputError, match="is 0"):
            ratio_of_means([5.0, 6.0], [-1.0, 1.0])

    def test_no_spread_is_refused_in_words(self) -> None:
        with pytest.raises(NotEnoughDataError, match="do not vary"):
            hedges_g([1.0, 1.0], [2.0, 2.0])
        with pytest.raises(NotEnoughDataError, match="do not vary"):
            paired_hedges_g([1.0, 2.0], [2.0, 3.0])


class TestPosterior:
    @settings(max_examples=15, deadline=None)
    @given(st.floats(-3, 3), st.floats(0.05, 20.0), st.sampled_from([2, 3, 9, 40]), st.sampled_from([2, 5, 30]))
    def test_it_is_the_distribution_of_a_difference(self, at: float, scale: float, df: int, other_df: int) -> None:
        found = DifferencePosterior(MeanPosterior(0.3, 1.0, df), MeanPosterior(-0.2, scale, other_df))
        first, second = stats.t(df, 0.3, 1.0), stats.t(other_df, -0.2, scale)
        expected = integrate.quad(
            lambda mean: first.cdf(at + mean) * second.pdf(mean), -np.inf, np.inf, limit=400, epsabs=1e-9
        )[0]
        assert found.below(at) == pytest.approx(expected, abs=2e-5)

    def test_pairs_have_a_closed_form(self) -> None:
        found = posterior(PAIRS, B, paired=True)
        expected = stats.ttest_rel(PAIRS, B, alternative="greater").pvalue
        assert found.p_first_better == pytest.approx(expected, abs=1e-6)
        low, high = stats.ttest_rel(PAIRS, B).confidence_interval()
        assert found.interval is not None
        assert (found.interval.low, found.interval.high) == pytest.approx((low, high), rel=1e-4)

    def test_the_chances_are_all_there_is(self) -> None:
        for rope in (0.0, 0.1, 5.0):
            found = posterior(A, B, rope=rope, direction="max")
            total = found.p_first_better + found.p_same + found.p_second_better
            assert total == pytest.approx(1.0)
            assert found.p_second_better == pytest.approx(posterior(B, A, rope=rope, direction="max").p_first_better)
        assert found.p_same > 0.999
        assert posterior(A, B, direction="min").p_first_better == pytest.approx(
            1 - posterior(A, B, direction="max").p_first_better
        )

    def test_the_interval_holds_its_level(self) -> None:
        found = DifferencePosterior(MeanPosterior.of(A), MeanPosterior.of(B))
        reach = spread(found, 0.9)
        assert found.below(found.mean + reach) - found.below(found.mean - reach) == pytest.approx(0.9, abs=1e-6)

    def test_one_sample_without_spread_is_taken_as_known(self) -> None:
        found = posterior([3.0, 3.0, 3.0], B)
        expected = stats.ttest_1samp(B, 3.0, alternative="less").pvalue
        assert found.p_first_better == pytest.approx(expected, abs=1e-5)

    def test_what_cannot_be_is_refused(self) -> None:
        with pytest.raises(NotEnoughDataError, match="do not vary"):
            posterior([1.0, 1.0], [2.0, 2.0])
        with pytest.raises(InvalidInputError, match="rope=-1"):
            posterior(A, B, rope=-1.0)


FLAT, OTHER = [1.0, 1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0]


class TestDegenerateInput:
    def test_values_that_do_not_vary(self) -> None:
        for found in (welch_t(FLAT, OTHER), one_sample_t(FLAT), paired_t(FLAT, OTHER), anova([FLAT, OTHER])):
            assert found.p_value is None
            assert "do not vary" in found.notes[0]
        found = permutation_test(FLAT, OTHER)
        assert (found.p_value, found.interval) == (pytest.approx(2 / 252), None)
        assert permutation_test(FLAT, FLAT).p_value == 1.0
        assert permutation_anova([FLAT, FLAT, FLAT]).p_value == 1.0
        assert sign_flip(np.zeros(8)).p_value == 1.0
        assert mann_whitney(FLAT, FLAT).p_value == kruskal([FLAT, FLAT]).p_value == wilcoxon(FLAT, FLAT).p_value == 1.0
        assert friedman([[1, 1, 1]] * 4).p_value == 1.0
        assert dunn([FLAT, FLAT])[0, 1].p_value == 1.0
        assert games_howell([FLAT, OTHER, [1, 2, 3]])[0, 1].p_value is None
        assert bootstrap_t(FLAT).p_value is None
        assert block_anova([[1, 2, 3]] * 4).p_value is None

    def test_rounding_noise_is_no_spread(self) -> None:
        noisy = np.array([0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2])
        assert welch_t(noisy, noisy[::-1]).p_value is None
        assert permutation_test(noisy, noisy[::-1]).p_value == 1.0

    @pytest.mark.parametrize("test", [permutation_test, welch_t, paired_t, hedges_g, posterior])
    def test_too_few_values_are_refused(self, test: Callable[..., object]) -> None:
        with pytest.raises(NotEnoughDataError, match=r"at least 2|two"):
            test([1.0], [2.0])

    def test_what_is_not_finite_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="1 NaN or infinite value"):
            welch_t([1.0, math.nan, 2.0], A)

    def test_too_many_to_rearrange_are_refused(self) -> None:
        many = np.arange(600.0)
        with pytest.raises(InvalidInputError, match=r"1,200 values are too many .* t test"):
            permutation_test(many, many)

    def test_a_million_values(self) -> None:
        one, other = np.random.default_rng(0).normal(size=(2, 10**6))
        assert welch_t(one + 0.01, other).p_value < 1e-6  # type: ignore[operator]
        assert mann_whitney(one + 0.01, other).p_value < 1e-6  # type: ignore[operator]
        assert abs(hedges_g(one, other).value) < 0.01
        assert abs(vargha_delaney(one, other).value - 0.5) < 0.01


@pytest.mark.parametrize("n", [1, 4, 5, 7, 15, 1_000])
def test_two_samples_one_step_apart_are_as_close_as_can_be(n: int) -> None:
    found = kolmogorov_smirnov(np.arange(n), np.arange(n) + 0.5)
    assert (found.p_value, found.method) == (1.0, "Kolmogorov-Smirnov (exact)")
    assert found.statistic == pytest.approx(1 / n)


OF_VARIANCES = [welch_t, paired_t, hedges_g, ratio_of_means, posterior]


@pytest.mark.parametrize("test", [*OF_VARIANCES, permutation_test, mann_whitney, cliffs_delta])
def test_values_whose_variance_is_infinite_are_refused(test: Callable[..., object]) -> None:
    with pytest.raises(InvalidInputError, match="diverged to inf"):
        test(1e300 * np.arange(1.0, 8.0), 1e300 * np.arange(2.0, 9.0) ** 1.1)


@pytest.mark.parametrize("test", OF_VARIANCES)
def test_values_whose_variance_vanishes_are_refused(test: Callable[..., object]) -> None:
    with pytest.raises(InvalidInputError, match="multiply by a constant"):
        test(1e-300 * np.arange(1.0, 8.0), 1e-300 * np.arange(2.0, 9.0) ** 1.1)


@pytest.mark.parametrize("test", [one_sample_t, sign_flip, bootstrap_t])
def test_an_alternative_that_is_none(test: Callable[..., object]) -> None:
    with pytest.raises(InvalidInputError, match="alternative='lower': 'two-sided', 'less' or 'greater'"):
        test(np.arange(6.0), alternative="lower")
