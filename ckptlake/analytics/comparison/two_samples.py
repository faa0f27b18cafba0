"""Classical tests of two configurations, and of one sample against a value."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ckptlake.analytics.arguments import LARGEST, check_level, check_magnitude, check_number
from ckptlake.analytics.comparison.outcome import Alternative, Outcome, check_alternative, finite_values
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Interval
from ckptlake.errors import InvalidInputError

_NOISE = 1e-12
_FLAT = "the values do not vary, so that a t test cannot tell anything"


def welch_t(
    first: ArrayLike, second: ArrayLike, *, level: float = 0.95, alternative: Alternative = "two-sided",
    against: float = 0.0,
) -> Outcome:  # fmt: skip
    """Test whether two means differ, with variances that may differ (Welch 1947).

    Args:
        first: float, shape (n,), n >= 2, all finite.
        second: float, shape (m,), m >= 2, all finite.
        level: the confidence of the interval, one-sided where the alternative is.
        alternative: ``"less"`` asks whether the difference is below `against`.
        against: the difference that is tested.

    Returns:
        The outcome; its estimate is the mean of `first` minus that of `second`.

    Raises:
        NotEnoughDataError: a sample has fewer than two values.
        InvalidInputError: a value is not finite.

    Example:
        >>> found = welch_t([1.0, 1.2, 1.1], [2.0, 2.3, 1.9])
        >>> round(found.estimate, 3), round(found.p_value, 4)
        (-0.967, 0.0062)
    """
    first, second = finite_values(first, least=2), finite_values(second, least=2)
    difference, se, df = welch_terms(first, second)
    return _t_outcome("Welch t", difference, se, df, against, alternative, level)


def welch_terms(first: Floats, second: Floats) -> tuple[float, float, float]:
    """Return the difference of two means, its standard error, and Satterthwaite's degrees of freedom."""
    shares = np.array([variance(values) / len(values) for values in (first, second)])
    se = math.sqrt(shares.sum())
    if se == 0.0:
        return float(first.mean() - second.mean()), 0.0, float(len(first) + len(second) - 2)
    shares /= shares.sum()
    df = 1 / float((shares**2 / np.array([len(first) - 1, len(second) - 1])).sum())
    return float(first.mean() - second.mean()), se, df


def paired_t(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Outcome:
    """Test whether the mean difference of pairs is zero (Student 1908).

    Args:
        first: float, shape (n,), n >= 2, all finite.
        second: float, shape (n,), in the same order.
        level: the confidence of the interval.

    Raises:
        NotEnoughDataError: there are fewer than two pairs.
        InvalidInputError: a value is not finite, or the lengths differ.

    Example:
        >>> round(paired_t([1.0, 2.0, 3.0], [1.5, 2.6, 3.4]).p_value, 4)
        0.0131
    """
    return replace(one_sample_t(pair_differences(first, second), level=level), method="paired t")


def one_sample_t(
    values: ArrayLike, *, against: float = 0.0, alternative: Alternative = "two-sided", level: float = 0.95
) -> Outcome:
    """Test whether a mean is a given value (Student 1908).

    Args:
        values: float, shape (n,), n >= 2, all finite.
        against: the mean that is tested.
        alternative: ``"less"`` asks whether the mean is below it.
        level: the confidence of the interval, one-sided where the alternative is.

    Raises:
        NotEnoughDataError: there are fewer than two values.
        InvalidInputError: a value is not finite.

    Example:
        >>> round(one_sample_t([3.27, 3.275, 3.272], against=3.28, alternative="less").p_value, 4)
        0.017
    """
    found = finite_values(values, least=2)
    se = math.sqrt(variance(found) / len(found))
    return _t_outcome("one-sample t", float(found.mean()), se, len(found) - 1, against, alternative, level)


def mann_whitney(first: ArrayLike, second: ArrayLike) -> Outcome:
    """Test whether values of one configuration tend to be higher (Mann & Whitney 1947).

    Exact where no values are equal and there are at most 20 a sample; else normal, corrected for ties and
    continuity.

    Args:
        first: float, shape (n,), n >= 1, all finite.
        second: float, shape (m,), m >= 1, all finite.

    Raises:
        NotEnoughDataError: a sample is empty.
        InvalidInputError: a value is not finite.

    Example:
        >>> round(mann_whitney([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]).p_value, 4)
        0.0286
    """
    first, second = finite_values(first, least=1), finite_values(second, least=1)
    together = np.concatenate([first, second])
    if np.ptp(together) == 0.0:
        return Outcome("Mann-Whitney", len(first) * len(second) / 2, 1.0)
    is_exact = len(np.unique(together)) == len(together) and max(len(first), len(second)) <= 20
    found = stats.mannwhitneyu(first, second, method="exact" if is_exact else "asymptotic")
    return Outcome(
        f"Mann-Whitney ({'exact' if is_exact else 'normal approximation'})", float(found.statistic), float(found.pvalue)
    )


def kolmogorov_smirnov(first: ArrayLike, second: ArrayLike) -> Outcome:
    """Test whether two distributions differ anywhere, in place, spread or shape (Smirnov 1939).

    Args:
        first: float, shape (n,), n >= 1, all finite.
        second: float, shape (m,), m >= 1, all finite.

    Raises:
        NotEnoughDataError: a sample is empty.
        InvalidInputError: a value is not finite.

    Example:
        >>> round(kolmogorov_smirnov([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]).p_value, 4)
        0.0286
    """
    first, second = finite_values(first, least=1), finite_values(second, least=1)
    is_exact = max(len(first), len(second)) <= 1_000
    with warnings.catch_warnings():
        # The exact chance is a sum that rounding can take past 1, of which scipy warns; that happens in the case below.
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
        found = stats.ks_2samp(first, second, method="exact" if is_exact else "asymp")
    if is_exact and len(first) == len(second) and round(found.statistic * len(first)) <= 1:
        # No two samples of one size can lie closer without being equal.
        return Outcome("Kolmogorov-Smirnov (exact)", float(found.statistic), 1.0)
    return Outcome(
        f"Kolmogorov-Smirnov ({'exact' if is_exact else 'asymptotic'})", float(found.statistic), float(found.pvalue)
    )


def wilcoxon(first: ArrayLike, second: ArrayLike) -> Outcome:
    """Test whether differences of pairs lie evenly around zero, by their ranks (Wilcoxon 1945).

    Zeros are ranked and then left out (Pratt 1959). Exact where no differences are equal and there are at most
    50 pairs.

    Args:
        first: float, shape (n,), n >= 1, all finite.
        second: float, shape (n,), in the same order.

    Raises:
        NotEnoughDataError: there is no pair.
        InvalidInputError: a value is not finite, or the lengths differ.

    Example:
        >>> wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.1, 2.2, 3.3, 4.4, 5.5, 6.6]).p_value
        0.03125
    """
    differences = pair_differences(first, second)
    if not differences.any():
        return Outcome("Wilcoxon signed rank", 0.0, 1.0)
    sizes = np.abs(differences)
    is_exact = len(np.unique(sizes)) == len(sizes) <= 50 and bool(sizes.all())
    found = stats.wilcoxon(differences, zero_method="pratt", method="exact" if is_exact else "asymptotic")
    how = "exact" if is_exact else "normal approximation"
    return Outcome(f"Wilcoxon signed rank ({how})", float(found.statistic), float(found.pvalue))


def pair_differences(first: ArrayLike, second: ArrayLike) -> Floats:
    """Return first minus second, with what is rounding noise taken for zero.

    Raises:
        InvalidInputError: a value is not finite, or the lengths differ.
    """
    first, second = finite_values(first, least=1), finite_values(second, least=1)
    if len(first) != len(second):
        raise InvalidInputError(f"pairs need as many values on both sides, got {len(first)} and {len(second)}")
    differences = first - second
    noise = _NOISE * np.maximum(np.abs(first), np.abs(second))
    return np.where(np.abs(differences) <= noise, 0.0, differences)


def variance(values: Floats) -> float:
    """Return the sample variance, zero where values differ by rounding noise alone."""
    if len(values) < 2 or np.ptp(values) <= _NOISE * np.abs(values).max():
        return 0.0
    check_magnitude(values, "the sample")
    return float(values.var(ddof=1))


def _t_outcome(
    method: str, estimate: float, se: float, df: float, against: float, alternative: Alternative, level: float
) -> Outcome:
    check_alternative(alternative)
    check_level(level)
    check_number(against, "against", least=-LARGEST, most=LARGEST)
    if se == 0.0:
        statistic = math.copysign(math.inf, estimate - against) if estimate != against else 0.0
        return Outcome(method, statistic, None, df, estimate, notes=(_FLAT,))
    t = (estimate - against) / se
    below, above = float(stats.t.cdf(t, df)), float(stats.t.sf(t, df))
    p_value = {"less": below, "greater": above, "two-sided": min(1.0, 2 * min(below, above))}[alternative]
    reach = se * float(stats.t.ppf((1 + level) / 2 if alternative == "two-sided" else level, df))
    low = -math.inf if alternative == "less" else estimate - reach
    high = math.inf if alternative == "greater" else estimate + reach
    return Outcome(method, t, p_value, df, estimate, Interval(low, high, level, "Student t"))
