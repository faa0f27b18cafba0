"""Time-series models as a baseline."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analytics_forecast_curves import STEPS
from statsmodels.tsa.arima.model import ARIMA
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts import forecast_series
from ckptlake.analytics.forecasts.classical import smoothing_variance
from ckptlake.errors import InvalidInputError

LINE = 10 - 0.1 * STEPS + np.random.default_rng(0).normal(0, 0.05, 64)


def test_exponential_smoothing_has_the_variance_that_statsmodels_tells() -> None:
    fitted = ETSModel(pd.Series(LINE), trend="add", damped_trend=True).fit(disp=False)
    told = fitted.get_prediction(64, 64 + 19).forecast_variance
    assert smoothing_variance(fitted.params, fitted.scale, 20) == pytest.approx(np.asarray(told), rel=1e-6)


def test_arima_is_that_of_statsmodels() -> None:
    found = forecast_series(Curve.of("a", STEPS, LINE), 80, model="arima")
    told = ARIMA(LINE, order=(1, 1, 1), trend="t").fit().get_forecast(16)
    assert found.value == pytest.approx(told.predicted_mean[-1], rel=1e-6)
    assert found.interval is not None
    assert found.interval.low == pytest.approx(told.conf_int(alpha=0.1)[-1][0], rel=0.01)


def test_a_trend_goes_on() -> None:
    found = forecast_series(Curve.of("a", STEPS, LINE), 70)
    assert found.value == pytest.approx(3, abs=0.25)
    assert found.beats_baselines
    assert found.checks[0].holds is None


def test_what_no_model_can_tell_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="does not vary"):
        forecast_series(Curve.of("a", STEPS, np.ones(64)), 70)
    with pytest.raises(InvalidInputError, match="'ets' or 'arima', got 'prophet'"):
        forecast_series(Curve.of("a", STEPS, LINE), 70, model="prophet")  # type: ignore[arg-type]
