"""Slopes: against scipy where noise is independent, by simulation where it is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, stats

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.trends import change_points, overfitting, slope
from ckptlake.analytics.trends.slopes import blocks, monotone
from ckptlake.errors import InvalidInputError, NotEnoughDataError


def noise(rng: np.random.Generator, n: int, coefficient: float) -> np.ndarray:
    return signal.lfilter([1], [1, -coefficient], rng.standard_normal(n + 200))[200:]


@given(st.integers(8, 60), st.integers(0, 100))
def test_slope_and_tau_are_those_of_scipy(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps, values = np.sort(rng.uniform(0, 100, n)), rng.normal(size=n)
    found = monotone(steps, values)
    assert found.slope == pytest.approx(stats.theilslopes(values, steps).slope)
    assert found.tau == pytest.approx(stats.kendalltau(steps, values).statistic)
    assert found.low <= found.slope <= found.high


def test_without_autocorrelation_the_variance_is_kendalls() -> None:
    values = np.random.default_rng(3).integers(0, 5, 500).astype(float)
    found = monotone(np.arange(500.0), values)
    assert found.p == pytest.approx(stats.kendalltau(np.arange(500), values).pvalue, abs=0.05)
    assert found.n_effective == pytest.approx(500, rel=0.2)


def false_positives(n: int, coefficient: float, n_simulations: int) -> float:
    rng = np.random.default_rng(0)
    steps = np.arange(float(n))
    return sum(monotone(steps, noise(rng, n, coefficient)).p < 0.05 for _ in range(n_simulations)) / n_simulations


def test_a_trend_in_noise_is_told_as_seldom_as_said() -> None:
    assert 0.04 <= false_positives(80, 0.6, 2000) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 200])
@pytest.mark.parametrize("coefficient", [0.0, 0.3, 0.6, 0.8])
def test_false_positives_on_first_order_noise(n: int, coefficient: float) -> None:
    assert 0.04 <= false_positives(n, coefficient, 4000) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("coefficient", [0.0, 0.3, 0.6])
def test_the_interval_covers_the_slope(coefficient: float) -> None:
    rng = np.random.default_rng(1)
    steps = np.arange(100.0)
    hits = 0
    for _ in range(2000):
        found = monotone(steps, 0.02 * steps + noise(rng, 100, coefficient))
        hits += found.low <= 0.02 <= found.high
    assert 0.93 <= hits / 2000 <= 0.97


@given(st.floats(-10, 10), st.floats(-100, 100), st.integers(8, 40))
def test_a_line_is_found(rise: float, height: float, n: int) -> None:
    steps = np.arange(float(n))
    found = slope(Curve("a", steps, height + rise * steps))
    assert found.slope == pytest.approx(rise, abs=1e-9)
    assert found.interval is not None
    assert found.interval.low <= found.slope <= found.interval.high


class TestSlope:
    def test_a_constant_has_no_trend(self) -> None:
        found = slope(Curve("a", np.arange(20.0), np.full(20, 0.1)))
        assert (found.slope, found.p, found.tau) == (0.0, 1.0, 0.0)
        assert found.notes == ("all values are equal",)
        assert "no trend shows" in found.sentence()

    def test_autocorrelation_is_told(self) -> None:
        rng = np.random.default_rng(0)
        found = slope(Curve("a", np.arange(300.0), noise(rng, 300, 0.8)))
        assert found.checks[0].holds is False
        assert found.n_effective < 100

    def test_divergence_is_told(self) -> None:
        values = np.append(np.linspace(5, 3, 20), [np.nan, np.nan])
        found = slope(Curve("a", np.arange(22.0), values))
        assert found.notes == (
            "2 values of 22 NaN or infinite",
            "the curve diverged after step 19: this is its trend before",
        )
        assert "it falls" in found.sentence()

    def test_long_curves_become_blocks_and_it_is_told(self) -> None:
        rng = np.random.default_rng(0)
        steps = np.arange(50_000.0)
        found = slope(Curve("a", steps, 1e-4 * steps + rng.normal(size=50_000)))
        assert found.notes == ("medians of 2,000 blocks stand for 50,000 points",)
        assert found.interval is not None
        assert 1e-4 in found.interval

    def test_what_cannot_be(self) -> None:
        with pytest.raises(NotEnoughDataError, match="7 finite points: a slope takes 8"):
            slope(Curve("a", np.arange(7.0), np.zeros(7)))
        with pytest.raises(InvalidInputError, match="between 0 and 1"):
            slope(Curve("a", np.arange(9.0), np.zeros(9)), level=95)


@given(st.integers(1, 500), st.integers(1, 50))
def test_blocks_are_even_and_few(n: int, most: int) -> None:
    steps, values = blocks(np.arange(float(n)), np.arange(float(n)), most)
    assert len(steps) <= most or len(steps) == n
    assert np.array_equal(steps, values)
    assert np.ptp(np.diff(steps)) == 0 if len(steps) > 1 else True


def test_values_whose_variance_cannot_be_held_are_refused() -> None:
    curve = Curve("far out", np.arange(20.0), 1e300 * np.arange(1.0, 21.0))
    asked: list[Callable[[], object]] = [
        lambda: slope(curve), lambda: change_points(curve), lambda: overfitting(curve, curve, "min"),
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(InvalidInputError, match="'far out' has"):
            ask()
