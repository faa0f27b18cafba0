"""Statistics of runs: one value a run, summaries, intervals, tasks, outliers, correlation, power, configurations."""

from ckptlake.analytics.statistics.checks import equal_variances, normality
from ckptlake.analytics.statistics.configurations import Configurations, group_by_all_except
from ckptlake.analytics.statistics.corrections import adjusted
from ckptlake.analytics.statistics.correlation import Correlations, correlation_interval, correlations
from ckptlake.analytics.statistics.improvement import (
    ProbabilityOfImprovement,
    probability_above,
    probability_of_improvement,
)
from ckptlake.analytics.statistics.intervals import BCa, IntervalMethod, Percentile, StudentT
from ckptlake.analytics.statistics.outlier_rules import GeneralisedESD, Grubbs, MedianDeviation, OutlierRule
from ckptlake.analytics.statistics.outliers import Outliers, outliers
from ckptlake.analytics.statistics.power import SeedsNeeded, seeds_for_power, seeds_needed, welch_power
from ckptlake.analytics.statistics.profiles import PerformanceProfiles, performance_profiles, profile_of
from ckptlake.analytics.statistics.readings import AtStep, Best, Last, MeanOfLast, Reading, readings
from ckptlake.analytics.statistics.resampling import bca_interval, percentile_interval, resampled, stratified
from ckptlake.analytics.statistics.summaries import Summaries, Summary, summarise, summary
from ckptlake.analytics.statistics.tasks import (
    InterquartileMean,
    Mean,
    OptimalityGap,
    TaskAggregate,
    TaskAggregates,
    over_tasks,
)

__all__ = [
    "AtStep",
    "BCa",
    "Best",
    "Configurations",
    "Correlations",
    "GeneralisedESD",
    "Grubbs",
    "InterquartileMean",
    "IntervalMethod",
    "Last",
    "Mean",
    "MeanOfLast",
    "MedianDeviation",
    "OptimalityGap",
    "OutlierRule",
    "Outliers",
    "Percentile",
    "PerformanceProfiles",
    "ProbabilityOfImprovement",
    "Reading",
    "SeedsNeeded",
    "StudentT",
    "Summaries",
    "Summary",
    "TaskAggregate",
    "TaskAggregates",
    "adjusted",
    "bca_interval",
    "correlation_interval",
    "correlations",
    "equal_variances",
    "group_by_all_except",
    "normality",
    "outliers",
    "over_tasks",
    "percentile_interval",
    "performance_profiles",
    "probability_above",
    "probability_of_improvement",
    "profile_of",
    "readings",
    "resampled",
    "seeds_for_power",
    "seeds_needed",
    "stratified",
    "summarise",
    "summary",
    "welch_power",
]
