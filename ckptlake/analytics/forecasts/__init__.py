"""Forecasts of live runs: where they end, when they reach a target, whether they are worth their rest."""

from ckptlake.analytics.forecasts.beside import forecast_beside
from ckptlake.analytics.forecasts.calibration import Calibration, calibrate
from ckptlake.analytics.forecasts.classical import forecast_series
from ckptlake.analytics.forecasts.families import Decay
from ckptlake.analytics.forecasts.forecast import Forecast, Forecasts, forecast, forecast_many
from ckptlake.analytics.forecasts.reaching import TargetStep, forecast_step
from ckptlake.analytics.forecasts.stopping import StopAdvice, should_stop

__all__ = [
    "Calibration",
    "Decay",
    "Forecast",
    "Forecasts",
    "StopAdvice",
    "TargetStep",
    "calibrate",
    "forecast",
    "forecast_beside",
    "forecast_many",
    "forecast_series",
    "forecast_step",
    "should_stop",
]
