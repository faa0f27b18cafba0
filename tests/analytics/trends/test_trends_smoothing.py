"""Smoothing, against pandas, scipy and statsmodels, with uneven steps and missing values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.trends import ema, lowess, rolling_median, savitzky_golay
from ckptlake.errors import InvalidInputError, NotEnoughDataError

RNG = np.random.default_rng(0)
UNEVEN = Curve.of("a", RNG.uniform(0, 100, 200), RNG.normal(size=200))
EVEN = Curve("a", np.arange(200.0), RNG.normal(size=200))
SMOOTHERS: dict[str, Callable[[Curve], Curve]] = {
    "ema": lambda curve: ema(curve, 5.0),
    "rolling_median": lambda curve: rolling_median(curve, 7),
    "savitzky_golay": lambda curve: savitzky_golay(curve, 7),
    "lowess": lambda curve: lowess(curve, 0.2),
}
each = pytest.mark.parametrize("smooth", SMOOTHERS.values(), ids=SMOOTHERS)


@each
def test_what_is_not_finite_stays_and_spoils_nothing(smooth: Callable[[Curve], Curve]) -> None:
    values = UNEVEN.values.copy()
    values[[0, 50, 51, 199]] = np.nan, np.inf, -np.inf, np.nan
    curve = Curve("a", UNEVEN.steps, values)
    found = smooth(curve)
    assert np.array_equal(found.steps, curve.steps)
    assert np.array_equal(found.values[[0, 50, 51, 199]], values[[0, 50, 51, 199]], equal_nan=True)
    assert np.array_equal(found.values[curve.is_finite], smooth(curve.finite()).values)


@each
def test_a_constant_stays_and_noise_shrinks(smooth: Callable[[Curve], Curve]) -> None:
    assert np.allclose(smooth(Curve("a", UNEVEN.steps, np.full(200, 3.0))).values, 3.0)
    assert smooth(EVEN).values.std() < 0.8 * EVEN.values.std()
    gone = Curve("a", np.arange(20.0), np.full(20, np.nan))
    if smooth in (SMOOTHERS["ema"], SMOOTHERS["rolling_median"]):
        assert np.isnan(smooth(gone).values).all()


@given(st.floats(0.1, 100))
def test_ema_over_uneven_steps_is_that_of_pandas(half_life: float) -> None:
    times = pd.to_datetime(UNEVEN.steps * 1e9)
    oracle = pd.Series(UNEVEN.values).ewm(halflife=pd.Timedelta(half_life, "s"), times=times).mean()
    assert np.allclose(ema(UNEVEN, half_life).values, oracle, atol=1e-5)


@given(st.integers(0, 8), st.integers(0, 3))
def test_savitzky_golay_on_even_steps_is_that_of_scipy(half: int, degree: int) -> None:
    window = 2 * half + 1
    if degree < window:
        oracle = signal.savgol_filter(EVEN.values, window, degree, mode="interp")
        assert np.allclose(savitzky_golay(EVEN, window, degree).values, oracle)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=3))
def test_savitzky_golay_keeps_polynomials_over_uneven_steps(weights: list[float]) -> None:
    values = np.polynomial.polynomial.polyval(UNEVEN.steps / 100, weights)
    assert np.allclose(savitzky_golay(Curve("a", UNEVEN.steps, values), 9, 2).values, values, atol=1e-8)


def test_rolling_median_is_that_of_its_neighbours() -> None:
    found = rolling_median(EVEN, 9).values
    assert found[4:-4].tolist() == [float(np.median(EVEN.values[i - 4 : i + 5])) for i in range(4, 196)]


def test_lowess_bears_outliers() -> None:
    values = EVEN.steps.copy()
    values[::20] += 1000
    assert np.allclose(lowess(Curve("a", EVEN.steps, values), 0.3).values, EVEN.steps, atol=0.5)


def test_a_million_points() -> None:
    curve = Curve("a", np.arange(1e6), np.random.default_rng(0).normal(size=10**6))
    assert abs(ema(curve, 1e5).values[-1]) < 0.05
    assert rolling_median(curve, 5).values.std() < 1
    part = curve.until(100_000.0)
    assert savitzky_golay(part, 5).values.std() < 1


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: ema(EVEN, 0.0), "half_life=0.0: a finite number is needed, above 0"),
        (lambda: rolling_median(EVEN, 4), "window=4: an odd number"),
        (lambda: savitzky_golay(EVEN, 3, 3), "degree=3: a whole number is needed, 0 to 2"),
        (lambda: lowess(EVEN, 1.5), "share=1.5: a finite number is needed, above 0, at most 1"),
    ],
)
def test_what_cannot_be(call: Callable[[], Curve], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        call()


def test_too_few_points() -> None:
    short = Curve("a", np.arange(3.0), np.zeros(3))
    with pytest.raises(NotEnoughDataError, match="3 finite points: this smoothing takes 5"):
        savitzky_golay(short, 5)
    with pytest.raises(NotEnoughDataError, match="takes 30"):
        lowess(short)
