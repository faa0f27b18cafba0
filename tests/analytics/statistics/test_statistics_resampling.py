"""Bootstrap kernels, the centres they resample and the intervals made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ckptlake.analytics.frames import Sample
from ckptlake.analytics.results import Interval
from ckptlake.analytics.statistics import (
    BCa,
    Percentile,
    StudentT,
    bca_interval,
    percentile_interval,
    resampled,
    resampling,
)
from ckptlake.analytics.statistics import estimators as est
from ckptlake.analytics.statistics.expansion import acceleration_of, expanded, expansion
from ckptlake.analytics.statistics.resampling import stratified, stratified_interval
from ckptlake.errors import InvalidInputError, NotEnoughDataError

finite = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
many = st.lists(finite, min_size=4, max_size=40).map(np.array)


class TestEstimators:
    @given(many, st.sampled_from([0.0, 0.1, 0.25, 0.4]))
    def test_trimmed_means_are_those_of_scipy(self, values: np.ndarray, share: float) -> None:
        assert est.trimmed_mean(values, share) == pytest.approx(stats.trim_mean(values, share), rel=1e-12, abs=1e-9)
        assert est.iqm(values) == est.trimmed_mean(values, 0.25)

    @given(many)
    def test_spread_and_shape_are_those_of_scipy(self, values: np.ndarray) -> None:
        assert est.mad(values) == pytest.approx(stats.median_abs_deviation(values), abs=1e-12)
        assume(values.std() > 1e-3)
        assert est.skewness(values) == pytest.approx(stats.skew(values, bias=False), abs=1e-6)
        assert est.excess_kurtosis(values) == pytest.approx(stats.kurtosis(values, bias=False), abs=1e-5)

    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20).map(np.array))
    def test_any_finite_values_are_scaled_exactly_and_have_a_finite_shape(self, values: np.ndarray) -> None:
        scale = est.power_of_two(values)
        assert np.frexp(scale)[0] == 0.5
        assert np.abs(values / scale).max() < 2
        assert (np.abs(values / scale * scale - values) <= scale * np.finfo(float).tiny).all()
        for shape in (est.skewness(values), est.excess_kurtosis(values)):
            assert shape is None or np.isfinite(shape)

    def test_shape_needs_spread(self) -> None:
        assert est.skewness(np.ones(9)) is None
        assert est.skewness(np.array([1.0, 2.0])) is None
        assert est.excess_kurtosis(np.array([1.0, 2.0, 4.0])) is None


class TestDraws:
    def test_batches_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(1).normal(size=7)
        whole = resampled(values, est.mean, resamples=1000)
        monkeypatch.setattr(resampling, "_BATCH_VALUES", 50)
        assert (resampled(values, est.mean, resamples=1000) == whole).all()
        assert (resampled(values, est.mean, resamples=1000, seed=1) != whole).any()

    def test_their_spread_is_that_of_theory(self) -> None:
        values = np.random.default_rng(2).normal(size=50)
        draws = resampled(values, est.mean, resamples=40_000)
        assert draws.mean() == pytest.approx(values.mean(), abs=5 * values.std() / np.sqrt(50 * 40_000))
        assert draws.std() == pytest.approx(values.std() / np.sqrt(50), rel=0.02)

    def test_strata_are_drawn_from_themselves(self) -> None:
        def ranges(drawn: np.ndarray) -> np.ndarray:
            first, second = drawn[..., :3], drawn[..., 3:]
            return ((first < 5) & (first > 0)).all(-1) & ((second > 5) & (second < 9)).all(-1)

        found = stratified([np.array([1.0, 2.0, 3.0]), np.array([6.0, 7.0])], ranges, resamples=200)
        assert found.tolist() == [1.0] * 200

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.array([1.0]), "1 values cannot be resampled"),
            (np.array([1.0, np.nan, np.inf]), "2 of 3 values are NaN or infinite"),
            (np.ones((2, 2)), "has shape"),
        ],
    )
    def test_what_cannot_be_resampled_is_told(self, values: np.ndarray, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            resampled(values, est.mean)

    def test_bad_options_are_told(self) -> None:
        for count in (0, 2.5, True, "10", 10**9):
            with pytest.raises(InvalidInputError, match=f"resamples={count!r}"):
                resampled(np.arange(3.0), est.mean, resamples=count)  # type: ignore[arg-type]
            with pytest.raises(InvalidInputError, match=f"resamples={count!r}"):
                BCa(resamples=count)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="no stratum"):
            stratified([], est.mean)
        with pytest.raises(InvalidInputError, match=r"values up to 1\.7e\+308"):
            percentile_interval(np.full(4, 1.7e308), est.mean)
        with pytest.raises(InvalidInputError, match="reduce axis=-1"):
            resampled(np.arange(3.0), np.mean)
        with pytest.raises(InvalidInputError, match="level=95"):
            percentile_interval(np.arange(3.0), est.mean, level=95)
        with pytest.raises(InvalidInputError, match="no centre 'mode'"):
            BCa("mode")  # type: ignore[arg-type]
        with pytest.raises(NotEnoughDataError):
            StudentT().of(np.array([1.0]))


class TestIntervals:
    @pytest.mark.parametrize("statistic", [est.mean, est.iqm, est.median], ids=["mean", "iqm", "median"])
    @pytest.mark.parametrize(("kernel", "name"), [(percentile_interval, "percentile"), (bca_interval, "BCa")])
    @pytest.mark.parametrize("n", [9, 40])
    def test_their_ends_are_as_much_farther_than_those_of_scipy_as_t_and_n_say(
        self, kernel, name, statistic, n: int
    ) -> None:  # type: ignore[no-untyped-def]
        values = np.random.default_rng(n).lognormal(size=n)
        found = kernel(values, statistic, resamples=999, seed=3)
        rng = np.random.default_rng(3)
        theirs = stats.bootstrap(
            (values,), lambda drawn, axis: statistic(drawn), n_resamples=999, method=name, rng=rng, batch=999
        ).confidence_interval
        estimate = statistic(values)
        farther = np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975)
        expected = [estimate + farther * (end - estimate) for end in (theirs.low, theirs.high)]
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
        assert found.method == f"expanded bootstrap {name}, 999 resamples"

    @pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
    def test_of_many_normal_values_they_are_those_of_student(self, level: float) -> None:
        values = np.random.default_rng(0).normal(3, 2, 300)
        student, found = StudentT(level).of(values), Percentile(level=level, resamples=40_000).of(values)
        assert (found.low, found.high) == pytest.approx((student.low, student.high), abs=0.03 * student.width)

    def test_of_one_stratum_they_are_the_same(self) -> None:
        values = np.random.default_rng(5).normal(size=6)
        one, whole = stratified_interval([values], est.mean, seed=2), bca_interval(values, est.mean, seed=2)
        assert (one.low, one.high) == pytest.approx((whole.low, whole.high))

    @given(st.lists(st.tuples(st.integers(2, 30), st.floats(0, 1e6)), min_size=1, max_size=8), st.floats(0.5, 0.999))
    def test_degrees_of_freedom_lie_between_those_of_one_stratum_and_of_all(self, strata, level: float) -> None:  # type: ignore[no-untyped-def]
        sizes, variances = [n for n, _ in strata], [variance for _, variance in strata]
        factor = expansion(level, sizes, variances)
        tail = (1 + level) / 2
        least = stats.t.ppf(tail, sum(sizes) - len(sizes)) / stats.norm.ppf(tail)
        most = np.sqrt(min(sizes) / (min(sizes) - 1)) * stats.t.ppf(tail, min(sizes) - 1) / stats.norm.ppf(tail)
        assert least * (1 - 1e-9) <= factor <= most * (1 + 1e-9)
        assert expansion(level, sizes, [1000 * variance for variance in variances]) == pytest.approx(factor)

    @given(st.tuples(finite, finite).map(sorted), finite, st.floats(1, 10))
    def test_expanding_never_narrows(self, ends: list[float], estimate: float, factor: float) -> None:
        found = expanded(Interval(*ends, 0.95, "plain"), estimate, factor, "expanded")
        assert found.low <= ends[0] <= ends[1] <= found.high

    def test_many_values_of_strata_are_left_out_in_groups(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(6)
        strata = [rng.normal(size=200), rng.normal(scale=3, size=300), rng.normal(size=4)]
        exact = stratified_interval(strata, est.mean, resamples=500)
        monkeypatch.setattr(resampling, "_JACKKNIFE_MOST", 100)
        grouped = stratified_interval(strata, est.mean, resamples=500)
        assert (grouped.low, grouped.high) == pytest.approx((exact.low, exact.high), abs=0.01 * exact.width)

    def test_many_values_are_left_out_in_groups(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(4).lognormal(size=3000)
        exact = acceleration_of([resampling._left_out(values, est.mean, 0)])
        monkeypatch.setattr(resampling, "_JACKKNIFE_MOST", 100)
        assert acceleration_of([resampling._left_out(values, est.mean, 0)]) == pytest.approx(exact, rel=0.25)
        assert exact == pytest.approx(stats.skew(values) / (6 * np.sqrt(3000)), rel=0.01)

    def test_where_bca_does_not_exist_it_says_so(self) -> None:
        found = bca_interval(np.arange(10.0), lambda drawn: drawn.max(axis=-1))
        assert found.high == 9.0
        assert "BCa does not exist here" not in bca_interval(np.arange(10.0), est.mean).method
        far = bca_interval(np.arange(1.0, 11.0), lambda drawn: np.where((drawn == drawn[..., :1]).all(-1), 1.0, 0.0))
        assert far.method.startswith("bootstrap")

    @pytest.mark.parametrize("policy", [StudentT(), Percentile(), BCa(), Percentile("iqm"), BCa("median")])
    def test_constants_have_an_interval_of_no_width(self, policy) -> None:  # type: ignore[no-untyped-def]
        found = policy.of(np.full(30, 3.0))
        assert (found.low, found.high) == (3.0, 3.0)

    @given(many, st.floats(-3, 3), st.floats(0.1, 10))
    def test_student_is_that_of_scipy_and_moves_with_its_values(self, values, shift: float, factor: float) -> None:  # type: ignore[no-untyped-def]
        assume(values.std() > 1e-2)
        found = StudentT(0.9).of(values)
        theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-6)
        moved = StudentT(0.9).of(values * factor + shift)
        expected = (found.low * factor + shift, found.high * factor + shift)
        assert (moved.low, moved.high) == pytest.approx(expected, rel=1e-9, abs=1e-6)

    def test_few_values_are_a_doubt_of_the_bootstrap(self) -> None:
        enough, skew = Percentile().checks(Sample("lr=0.1", np.arange(4.0)))
        assert (enough.holds, skew.holds) == (False, None)
        assert enough.evidence == "n = 4; 5 are wanted"
        assert Percentile("median").checks(Sample("", np.arange(5.0)))[0].holds is True

    def test_skewed_values_are_a_doubt_where_there_are_few(self) -> None:
        values = np.exp(np.linspace(0, 9, 20))
        _, skew = BCa().checks(Sample("lr=0.1", values))
        assert skew.holds is False
        assert str(skew).startswith("values not too skewed in lr=0.1: does not hold (skewness ")
        _, skew = BCa().checks(Sample("", np.random.default_rng(8).normal(size=20)))
        assert skew.holds is True
        assert BCa().checks(Sample("", np.ones(20))) == BCa("median").checks(Sample("", np.ones(20)))

    @pytest.mark.parametrize("policy", [StudentT(), Percentile(resamples=200), BCa(resamples=200)])
    def test_huge_values_do_not_overflow(self, policy) -> None:  # type: ignore[no-untyped-def]
        found = policy.of(np.linspace(1e307, 1.7e308, 20))
        assert 1e307 < found.low < 9e307 < found.high < 1.7e308


def covered(policy, draw, truth: float, simulations: int) -> float:  # type: ignore[no-untyped-def]
    """Return how often the interval holds the truth; every simulation resamples with a seed of its own."""
    rng = np.random.default_rng(7)
    policies = (
        [policy] * simulations
        if isinstance(policy, StudentT)
        else [replace(policy, seed=k) for k in range(simulations)]
    )
    return float(np.mean([truth in each.of(draw(rng)) for each in policies]))


@pytest.mark.parametrize("n", [2, 5, 30])
def test_student_covers_normal_means(n: int) -> None:
    assert 0.94 < covered(StudentT(), lambda rng: rng.normal(3, 2, n), 3.0, 6000) < 0.96


def test_the_expanded_percentile_interval_holds_normal_means_of_five() -> None:
    assert 0.93 < covered(Percentile(resamples=500), lambda rng: rng.normal(size=5), 0.0, 2000) < 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 8, 10, 20, 40])
@pytest.mark.parametrize("kind", [Percentile, BCa])
def test_few_normal_values_are_enough_for_a_mean(kind, n: int) -> None:  # type: ignore[no-untyped-def]
    assert 0.93 < covered(kind(resamples=2000), lambda rng: rng.normal(3, 2, n), 3.0, 5000) < 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("level", "least", "most"), [(0.9, 0.88, 0.92), (0.99, 0.98, 0.995)])
def test_other_levels_hold_too(level: float, least: float, most: float) -> None:
    assert least < covered(Percentile(level=level, resamples=5000), lambda rng: rng.normal(size=5), 0.0, 4000) < most


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 7, 20, 40])
@pytest.mark.parametrize("centre", ["iqm", "trimmed mean"])
def test_trimmed_centres_hold(centre, n: int) -> None:  # type: ignore[no-untyped-def]
    assert 0.93 < covered(Percentile(centre, resamples=1000), lambda rng: rng.normal(size=n), 0.0, 4000) < 0.97


@pytest.mark.slow
def test_medians_hold_from_ten_values_on() -> None:
    found = [
        covered(BCa("median", resamples=1000), lambda rng, n=n: rng.normal(size=n), 0.0, 3000) for n in (10, 20, 40)
    ]  # type: ignore[misc]
    assert all(0.93 < share < 0.97 for share in found), found


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 40, 100])
def test_skewed_means_hold_from_twenty_values_on_by_bca(n: int) -> None:
    assert 0.93 < covered(BCa(resamples=2000), lambda rng: rng.exponential(size=n), 1.0, 4000) < 0.97
