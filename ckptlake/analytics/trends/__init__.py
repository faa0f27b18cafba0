"""Trends: smoothing, slopes, verdicts on how runs ended, overfitting, jumps and stalls."""

from ckptlake.analytics.trends.changepoints import ChangePoints, change_points
from ckptlake.analytics.trends.excursions import Limits
from ckptlake.analytics.trends.judgements import ALARMS, KINDS, AlarmRate, Evidence, Kind, Verdict, Verdicts
from ckptlake.analytics.trends.overfitting import Overfitting, overfitting
from ckptlake.analytics.trends.slopes import Slope, slope
from ckptlake.analytics.trends.smoothing import ema, lowess, rolling_median, savitzky_golay
from ckptlake.analytics.trends.stalls import Stalls, stalls
from ckptlake.analytics.trends.verdicts import alarm_rate, verdict, verdicts

__all__ = [
    "ALARMS",
    "KINDS",
    "AlarmRate",
    "ChangePoints",
    "Evidence",
    "Kind",
    "Limits",
    "Overfitting",
    "Slope",
    "Stalls",
    "Verdict",
    "Verdicts",
    "alarm_rate",
    "change_points",
    "ema",
    "lowess",
    "overfitting",
    "rolling_median",
    "savitzky_golay",
    "slope",
    "stalls",
    "verdict",
    "verdicts",
]
