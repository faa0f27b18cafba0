"""Assumptions of the usual tests, looked at in the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ckptlake.analytics.arguments import check_probability
from ckptlake.analytics.frames import Sample
from ckptlake.analytics.results import Check
from ckptlake.analytics.statistics.estimators import excess_kurtosis, is_constant, power_of_two, skewness
from ckptlake.analytics.wording import number, p_value

_SHAPIRO_MOST = 5000
_WEAK_BELOW = 8


def normality(sample: Sample, *, alpha: float = 0.05) -> Check:
    """Return whether a sample agrees with a normal law.

    Shapiro-Wilk (1965) up to 5,000 values; above, where its p-value is not known well, the K² test of D'Agostino and
    Pearson (1973). That many values betray departures too small to matter, so the evidence also tells skewness and
    excess kurtosis. Few values betray only gross departures, and the evidence says so.

    Args:
        sample: any number of values; below three or without spread nothing can be told.
        alpha: `holds` is whether the p-value is at least this.

    Example:
        >>> check = normality(Sample("lr=0.1", np.array([1.0, 1.1, 0.9, 1.05, 0.95, 1.0, 1.02, 0.97])))
        >>> print(check)
        normal values in lr=0.1: agrees (Shapiro-Wilk W = 0.9909, p = 1)
    """
    check_probability(alpha, "alpha")
    assumption = f"normal values in {sample.label}" if sample.label else "normal values"
    if sample.n < 3:
        return Check(assumption, None, f"n = {sample.n}; at least 3 are needed")
    if is_constant(sample.values):
        return Check(assumption, None, f"all {sample.n:,} values are equal")
    scaled = sample.values / power_of_two(sample.values)
    unit = (scaled - scaled.min()) / np.ptp(scaled)
    if sample.n > _SHAPIRO_MOST:
        found = stats.normaltest(unit)
        skew, kurtosis = skewness(unit), excess_kurtosis(unit)
        told = (
            f"D'Agostino-Pearson K² = {number(found.statistic)}, {p_value(found.pvalue)} at n = {sample.n:,}; "
            f"skewness {number(skew, 2)}, excess kurtosis {number(kurtosis, 2)}"
        )
    else:
        found = stats.shapiro(unit)
        told = f"Shapiro-Wilk W = {number(found.statistic)}, {p_value(found.pvalue)}"
        if sample.n < _WEAK_BELOW:
            told += f"; {sample.n} values betray only gross departures"
    return Check(assumption, bool(found.pvalue >= alpha), told)


def equal_variances(samples: Sequence[Sample], *, alpha: float = 0.05) -> Check:
    """Return whether samples agree with one variance, by Brown and Forsythe (1974).

    That is Levene's test around the medians, which bears values that are not normal.

    Args:
        samples: at least two with three values each, else nothing can be told.
        alpha: `holds` is whether the p-value is at least this.

    Example:
        >>> tight, wide = np.linspace(-1, 1, 20), np.linspace(-9, 9, 20)
        >>> equal_variances([Sample("a", tight), Sample("b", wide)]).holds
        False
    """
    check_probability(alpha, "alpha")
    assumption = "equal variances"
    if len(samples) < 2 or min(sample.n for sample in samples) < 3:
        return Check(assumption, None, "at least two samples of 3 values are needed")
    scale = max(power_of_two(sample.values) for sample in samples)
    scaled = [sample.values / scale for sample in samples]
    away = [np.abs(values - np.median(values)) for values in scaled]
    stds = [scale * float(np.std(values, ddof=1)) for values in scaled]
    spreads = f"standard deviations {number(min(stds))} to {number(max(stds))}"
    if all(map(is_constant, away)):
        sizes = {float(each[0]) for each in away}
        if sizes == {0.0}:
            return Check(assumption, None, "no sample has any spread")
        return Check(assumption, len(sizes) == 1, f"every value is equally far from its median; {spreads}")
    # Measured by the farthest value, the squares of small deviations do not vanish.
    farthest = max(float(each.max()) for each in away)
    found = stats.levene(*((values - np.median(values)) / farthest for values in scaled), center="median")
    degrees = f"{len(away) - 1}, {sum(map(len, away)) - len(away)}"
    told = f"Brown-Forsythe F({degrees}) = {number(found.statistic)}, {p_value(found.pvalue)}; {spreads}"
    return Check(assumption, bool(found.pvalue >= alpha), told)
