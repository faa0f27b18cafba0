"""Curves that cannot be forecast, or hardly: each gets an answer or the reason why not."""

from __future__ import annotations

import numpy as np
import pytest
from analytics_forecast_curves import STEPS, cooled_runs, half
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts import calibrate, forecast, forecast_many
from ckptlake.errors import InvalidInputError, NotEnoughDataError

LOSS = 3 + 2 * STEPS**-0.5


def of(values: np.ndarray, steps: np.ndarray | None = None) -> Curve:
    return Curve.of("a", np.arange(1.0, len(values) + 1) if steps is None else steps, values)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_too_few_points_are_refused(n: int) -> None:
    with pytest.raises(NotEnoughDataError, match=f"has {n} finite value"):
        forecast(of(LOSS[:n]), 100)


def test_a_curve_that_ends_in_nan_is_refused_with_what_was_seen() -> None:
    values = np.append(LOSS[:20], [np.nan, np.nan])
    with pytest.raises(InvalidInputError, match=r"diverged: the value at step 22 is nan.*3\.447 at step 20"):
        forecast(of(values), 100)
    with pytest.raises(InvalidInputError, match="it has no finite value"):
        forecast(of(np.full(20, np.inf)), 100)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_a_curve_that_lost_more_than_it_had_gained_is_refused(direction: str) -> None:
    values = np.concatenate([LOSS[:24], [9.0] * 8]) * (1 if direction == "min" else -1)
    with pytest.raises(InvalidInputError, match=r"has diverged: it began near .*was best at step 24"):
        forecast(of(values), 100, direction=direction)  # type: ignore[arg-type]


def test_nan_amid_a_curve_is_counted() -> None:
    values = LOSS[:32].copy()
    values[[4, 9]] = np.nan, np.inf
    found = forecast(of(values), 64)
    assert found.notes == ("a: left out 2 NaN or infinite of 32 values",)
    assert found.n == 30
    assert found.value == pytest.approx(LOSS[-1], abs=1e-3)


@pytest.mark.parametrize("horizon", [32.0, 3.0])
def test_a_horizon_lies_ahead(horizon: float) -> None:
    with pytest.raises(InvalidInputError, match="must be a step later than the last one of 'a', 32"):
        forecast(of(LOSS[:32]), horizon)


@pytest.mark.parametrize("horizon", [np.nan, np.inf, True, "64"])
def test_a_horizon_is_a_number(horizon: float) -> None:
    with pytest.raises(InvalidInputError, match=f"horizon={horizon!r}: a finite number"):
        forecast(of(LOSS[:32]), horizon)


@pytest.mark.parametrize("seed", [2.5, True, "10", -1])
def test_a_seed_is_a_whole_number(seed: int) -> None:
    with pytest.raises(InvalidInputError, match=f"seed={seed!r}: a whole number"):
        forecast(of(LOSS[:32]), 64, seed=seed)


@pytest.mark.parametrize("height", [1e80, 1.7e308])
def test_values_whose_squares_are_infinite_are_refused(height: float) -> None:
    high = of(height * (LOSS[:32] / LOSS[0]))
    with pytest.raises(InvalidInputError, match="curve 'a' has values up to"):
        forecast(high, 64)
    with pytest.raises(InvalidInputError, match="the finished run 'a' has values up to"):
        calibrate([high] * 6, outcomes=[3.0] * 6)
    with pytest.raises(InvalidInputError, match="the outcome of finished runs has values up to"):
        calibrate([of(LOSS[:32])] * 6, outcomes=[height] * 6)


def test_steps_below_zero_alone_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no steps above 0"):
        forecast(of(LOSS[:10], np.arange(-10.0, 0.0)), 5)


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0])
def test_levels_are_probabilities(level: float) -> None:
    with pytest.raises(InvalidInputError, match=f"level={level}: a confidence"):
        forecast(of(LOSS[:32]), 64, level=level)


@pytest.mark.parametrize("value", [0.0, 3.0, -1e9])
def test_a_constant_curve_stays(value: float) -> None:
    found = forecast(of(np.full(20, value)), 40)
    assert found.value == pytest.approx(value)
    assert found.interval is not None
    assert found.interval.width == pytest.approx(0, abs=1e-6 * (1 + abs(value)))
    assert not found.beats_baselines
    assert "do not rely on it" in found.sentence()


def test_a_rising_curve_is_forecast_to_rise_and_finished_runs_do_not_tell_it() -> None:
    rising = of(2 + 0.5 * np.sqrt(STEPS[:32]))
    runs, _ = cooled_runs(np.random.default_rng(0), 12)
    for known in (None, calibrate(runs)):
        found = forecast(rising, 64, calibration=known)
        assert found.value > found.last_value
        assert found.value == pytest.approx(6, abs=0.2)
    assert "finished runs do not tell its rest" in found.notes[-1]


def test_a_step_of_zero_is_no_obstacle() -> None:
    curve = Curve.of("a", np.arange(32.0), np.append(11.0, LOSS[:31]))
    assert forecast(curve, 64).value == pytest.approx(LOSS[-1], abs=0.02)


def test_a_long_curve_is_averaged_not_sampled() -> None:
    steps = np.arange(1.0, 1_000_001.0)
    noisy = 3 + 20 * steps**-0.5 + np.random.default_rng(0).normal(0, 0.3, len(steps))
    found = forecast(Curve.of("a", steps, noisy), 2_000_000)
    assert found.n == 1_000_000
    assert found.value == pytest.approx(3 + 20 * 2e6**-0.5, abs=0.01)
    assert found.seen.height <= 300
    # The interval is for the value of one point, noise included.
    assert found.interval is not None
    assert found.interval.width == pytest.approx(2 * 1.645 * 0.3, rel=0.35)


@settings(max_examples=40)
@given(st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=40), st.sampled_from(["min", "max"]))
def test_any_finite_curve_gets_finite_numbers_or_a_reason(values: list[float], direction: str) -> None:
    many = forecast_many([of(np.array(values))], 2.0 * len(values), direction=direction)  # type: ignore[arg-type]
    if many.refused:
        assert "has diverged" in many.refused["a"]
        return
    (found,) = many.forecasts
    assert np.isfinite([found.value, found.error, found.last_value_error, found.best_so_far_error]).all()
    assert found.interval is not None
    assert found.value in found.interval
    assert 0 < found.probability_better(found.last_value) < 1


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_calibrated_forecasts_are_finite_at_any_fraction(seed: int, fraction: float) -> None:
    runs, _ = cooled_runs(np.random.default_rng(seed), 12)
    live = runs[0].until(64 * fraction)
    try:
        found = forecast(live, 64, calibration=calibrate(runs[1:]))
    except NotEnoughDataError:
        assert live.n < 8
        return
    assert found.interval is not None
    assert found.value in found.interval
    assert abs(found.value - runs[0].values[-1]) < 1


def test_many_runs_are_forecast_and_the_rest_told() -> None:
    runs, _ = cooled_runs(np.random.default_rng(0), 14)
    live = [half(run) for run in runs[:3]]
    lost = Curve.of("lost", STEPS[:9], np.append(LOSS[:8], np.nan))
    found = forecast_many([*live, lost], 64, calibration=calibrate(runs[3:], unit="nats"))
    assert found.table["label"].to_list() == ["0.0", "1.0", "2.0"]
    assert found.table["value"].to_list() == [one.value for one in found.forecasts]
    assert "has diverged" in found.refused["lost"]
    best = min(found.forecasts, key=lambda one: one.value)
    assert found.sentence().startswith(f"3 runs forecast; {best.label} will end best")
    assert found.unit == "nats"
    nothing = forecast_many([lost], 64)
    assert nothing.forecasts == ()
    assert nothing.table.is_empty()
    assert nothing.sentence() == "0 runs forecast; 1 run refused: lost."
