"""Whole curves: aligned, averaged with bands, measured by their area and by the time they take to a value."""

from ckptlake.analytics.curves.aligning import Aligned, align
from ckptlake.analytics.curves.areas import Areas, areas_under
from ckptlake.analytics.curves.axes import Rescaled, curve_groups, elapsed, rescale
from ckptlake.analytics.curves.bands import Band, FirstBetter, band, first_better
from ckptlake.analytics.curves.thresholds import (
    ThresholdComparison,
    TimeToThreshold,
    compare_times,
    first_reached,
    time_to_threshold,
)

__all__ = [
    "Aligned",
    "Areas",
    "Band",
    "FirstBetter",
    "Rescaled",
    "ThresholdComparison",
    "TimeToThreshold",
    "align",
    "areas_under",
    "band",
    "compare_times",
    "curve_groups",
    "elapsed",
    "first_better",
    "first_reached",
    "rescale",
    "time_to_threshold",
]
