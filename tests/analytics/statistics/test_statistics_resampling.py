"""Bootstrap kernels, the centres they resample and the intervals made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ckptlake.analytics.frames import Sample
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
from ckptlake.analytics.statistics.resampling import counted, stratified
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

    def test_counts_sum_to_their_strata(self) -> None:
        counts = np.concatenate(list(counted([4, 2], resamples=3000)))
        assert (counts[:, :4].sum(-1) == 4).all()
        assert (counts[:, 4:].sum(-1) == 2).all()
        assert counts.mean(0) == pytest.approx(np.ones(6), abs=0.08)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.array([1.0]), "1 values cannot be resampled"),
            (np.array([1.0, np.nan, np.inf]), "2 of 3 values are NaN or infinite"),
            (np.ones((2, 2)), "one dimension"),
        ],
    )
    def test_what_cannot_be_resampled_is_told(self, values: np.ndarray, message: str) -> None:
        with pytest.raises(InvalidInputError, match=message):
            resampled(values, est.mean)

    def test_bad_options_are_told(self) -> None:
        with pytest.raises(InvalidInputError, match="resamples=0"):
            resampled(np.arange(3.0), est.mean, resamples=0)
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
    def test_they_are_those_of_scipy_for_the_same_draws(self, kernel, name, statistic, n: int) -> None:  # type: ignore[no-untyped-def]
        values = np.random.default_rng(n).lognormal(size=n)
        found = kernel(values, statistic, resamples=999, seed=3)
        rng = np.random.default_rng(3)
        theirs = stats.bootstrap(
            (values,), lambda drawn, axis: statistic(drawn), n_resamples=999, method=name, rng=rng, batch=999
        ).confidence_interval
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
        assert found.method == f"bootstrap {name}, 999 resamples"

    def test_many_values_are_left_out_in_groups(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(4).lognormal(size=3000)
        exact = resampling._acceleration(values, est.mean, 0)
        monkeypatch.setattr(resampling, "_JACKKNIFE_MOST", 100)
        assert resampling._acceleration(values, est.mean, 0) == pytest.approx(exact, rel=0.25)
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
        (check,) = Percentile().checks(Sample("lr=0.1", np.arange(5.0)))
        assert check.holds is False
        assert check.evidence == "n = 5; 30 are wanted"

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


@pytest.mark.slow
@pytest.mark.parametrize("policy", [Percentile(resamples=1000), BCa(resamples=1000)], ids=["percentile", "bca"])
def test_the_bootstrap_covers_normal_means_from_forty_values_on(policy) -> None:  # type: ignore[no-untyped-def]
    assert 0.93 < covered(policy, lambda rng: rng.normal(3, 2, 40), 3.0, 3000) < 0.97


def test_the_percentile_interval_is_too_narrow_for_five_values() -> None:
    assert 0.80 < covered(Percentile(resamples=1000), lambda rng: rng.normal(size=5), 0.0, 2000) < 0.87


@pytest.mark.slow
def test_coverage_of_other_centres_and_of_skewed_values() -> None:
    normal = {centre: BCa(centre, resamples=1000) for centre in ("iqm", "median", "trimmed mean")}
    found = {name: covered(policy, lambda rng: rng.normal(size=40), 0.0, 3000) for name, policy in normal.items()}
    found["skewed, 100 values"] = covered(BCa(resamples=1000), lambda rng: rng.exponential(size=100), 1.0, 3000)
    assert all(0.93 < share < 0.97 for share in found.values()), found
