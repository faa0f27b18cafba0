"""Time-series models as a further baseline: exponential smoothing and ARIMA, both from statsmodels."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_level
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts.forecast import Forecast
from ckptlake.analytics.forecasts.outlook import Outlook
from ckptlake.analytics.forecasts.seen import look
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.libraries import need
from ckptlake.analytics.results import Check, Interval
from ckptlake.analytics.wording import number
from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction

_POINTS = 64
_ERRORS = 200
_MOST_AHEAD = 6_400


def forecast_series(
    curve: Curve,
    horizon: float,
    *,
    model: Literal["ets", "arima"] = "ets",
    direction: Direction = "min",
    level: float = 0.9,
    unit: str = "",
) -> Forecast:
    """Return the end of a live run as a time-series model tells it, to compare `forecast` with.

    The curve is read at 64 even steps. ``"ets"`` is exponential smoothing with a damped trend (Hyndman et al. 2008,
    "Forecasting with exponential smoothing"), ``"arima"`` an ARIMA(1, 1, 1) with drift (Box and Jenkins). Their
    intervals rest on normal errors of that model alone. Neither knows that a loss levels off, or of a learning rate.

    Args:
        curve: what was seen of the run.
        horizon: the step to forecast.
        model: ``"ets"`` or ``"arima"``.
        direction: ``"min"`` for losses, ``"max"`` for accuracies.
        level: the confidence of the interval.
        unit: the unit of the values.

    Raises:
        NotEnoughDataError: fewer than eight finite values.
        InvalidInputError: the curve has diverged, does not vary, is at its horizon or very far from it, or the level is
            none.

    Example:
        >>> steps = np.arange(1.0, 101.0)
        >>> found = forecast_series(Curve.of("live", steps[:50], 3 + 1 / np.sqrt(steps[:50])), 100)
        >>> bool(3.0 < found.value < 3.15)
        True
    """
    if model not in ("ets", "arima"):
        raise InvalidInputError(f"model must be 'ets' or 'arima', got {model!r:.100}")
    check_level(level)
    seen = look(curve, horizon, direction)
    points = min(_POINTS, seen.curve.n)
    steps = np.linspace(seen.curve.steps[0], seen.curve.steps[-1], points)
    values = np.interp(steps, seen.curve.steps, seen.curve.values)
    if np.ptp(values) <= 1e-12 * (1 + float(np.abs(values).max())):
        raise InvalidInputError(f"{curve.label!r:.100} does not vary: its last value is the forecast")
    ahead = math.ceil((horizon - steps[-1]) / (steps[1] - steps[0]) - 1e-9)
    if ahead > _MOST_AHEAD:
        raise InvalidInputError(
            f"the horizon {number(horizon)} is {ahead / points:,.0f} times as long after what was seen of "
            f"{curve.label!r:.100} as that is: a series model takes at most {_MOST_AHEAD // points}"
        )
    mean, deviation, converged = _told(model, values, ahead)
    centre, spread = float(np.interp(horizon, _after(steps, ahead), mean)), float(deviation[-1])
    errors = _half_normal(_ERRORS)
    outlook = Outlook.of(centre, spread, errors, np.ones(_ERRORS))
    ends = outlook.ends(level)
    known = points * 3 // 4
    back = float(_told(model, values[:known], points - known)[0][-1])
    better = min if direction == "min" else max
    error, last_error = abs(back - values[-1]), abs(float(values[known - 1] - values[-1]))
    best_error = abs(float(better(values[:known])) - float(values[-1]))
    return Forecast(
        n=seen.curve.n,
        unit=unit,
        method="exponential smoothing with a damped trend" if model == "ets" else "ARIMA(1, 1, 1) with drift",
        checks=(Check("an interval that holds as often as it says", None, "it takes the model for granted"),),
        interval=None if ends is None else Interval(*ends, level, "normal errors of the model"),
        notes=seen.notes + ("the fit of the model did not converge",) * (not converged),
        label=curve.label,
        value=centre,
        horizon=seen.horizon,
        last_step=float(seen.curve.steps[-1]),
        last_value=seen.last,
        best_so_far=seen.best,
        direction=direction,
        beats_baselines=error < min(last_error, best_error),
        error=error,
        last_value_error=last_error,
        best_so_far_error=best_error,
        outlooks=(outlook,),
        steps=np.array([seen.horizon]),
        seen=pl.DataFrame({"step": steps, "value": values}),
    )


def _after(steps: Floats, ahead: int) -> Floats:
    return np.asarray(steps[-1] + (steps[1] - steps[0]) * np.arange(1, ahead + 1))


def _half_normal(count: int) -> Floats:
    from scipy.stats import halfnorm

    return np.asarray(halfnorm.ppf(np.arange(1, count + 1) / (count + 1)))


def _told(model: str, values: Floats, ahead: int) -> tuple[Floats, Floats, bool]:
    """Return mean and standard deviation of each of the next values, and whether the fit converged."""
    fitted: Any
    with warnings.catch_warnings():
        # What statsmodels warns of is told in the notes: a fit that did not converge.
        warnings.simplefilter("ignore")
        if model == "arima":
            models = need("statsmodels.tsa.arima.model", "a forecast by ARIMA")
            fitted = models.ARIMA(values, order=(1, 1, 1), trend="t").fit()
            told = fitted.get_forecast(ahead)
            converged = bool(fitted.mle_retvals["converged"])
            return np.asarray(told.predicted_mean), np.asarray(told.se_mean), converged
        models = need("statsmodels.tsa.exponential_smoothing.ets", "a forecast by exponential smoothing")
        fitted = models.ETSModel(values, trend="add", damped_trend=True).fit(disp=False)
        deviation = np.sqrt(smoothing_variance(fitted.params, fitted.scale, ahead))
        return np.asarray(fitted.forecast(ahead)), deviation, bool(fitted.mle_retvals["converged"])


def smoothing_variance(params: Floats, variance: float, ahead: int) -> Floats:
    """Return the variance of each of the next values of exponential smoothing with a damped trend.

    Args:
        params: the smoothing of the level, the smoothing of the trend and its damping, in this order.
        variance: of the one-step errors.
        ahead: how many values.
    """
    level, trend, damping = (float(param) for param in params[:3])
    pulls = level + trend * np.cumsum(damping ** np.arange(1, ahead))
    return np.asarray(variance * (1 + np.concatenate([[0.0], np.cumsum(pulls**2)])))
