"""How much wider an interval of resamples must be, so that with few values it holds what it promises.

A sample drawn from n values varies less than the values do, by (n - 1) / n, and few values tell their own spread badly.
Hesterberg ("What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015) mends both with the
factor ``sqrt(n / (n - 1)) t / z``, put on the normal quantiles of the tails. Here it is put on the distances from the
estimate to the plain ends: the same where resamples are about normal, but with five values the expanded tails lie where
there is no resample any more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri, stdtrit

from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Interval


def expansion(level: float, sizes: Sequence[int], variances: Sequence[float] = (1.0,)) -> float:
    """Return the factor by which an interval of resamples is too narrow.

    Args:
        level: the confidence, between 0 and 1.
        sizes: how many values each stratum has, at least two.
        variances: how much each stratum adds to the variance of the statistic, up to a common factor. With their
            degrees of freedom n - 1 they make those of the whole (Satterthwaite 1946); a single stratum has its own.

    Returns:
        At least 1.

    Example:
        >>> [round(expansion(0.95, sizes, [1.0] * len(sizes)), 3) for sizes in ([5], [40], [5, 5])]
        [1.584, 1.045, 1.315]
    """
    n, variance = np.asarray(sizes, np.float64), np.asarray(variances, np.float64)
    if not variance.any():
        variance = np.ones(len(n))
    shares = variance / variance.sum()
    freedom = 1 / (shares**2 / (n - 1)).sum()
    seen = (shares * (n - 1) / n).sum()
    tail = (1 + level) / 2
    return float(stdtrit(freedom, tail) / ndtri(tail) / np.sqrt(seen))


def expanded(plain: Interval, estimate: float, factor: float, method: str) -> Interval:
    """Return an interval whose ends lie farther from the estimate by a factor.

    An end that lies on the other side of the estimate, as the upper one of a maximum may, stays where it is.

    Example:
        >>> print(expanded(Interval(1.0, 4.0, 0.95, "plain"), 2.0, 1.5, "expanded"))
        95 % interval 0.5 to 5
    """
    low = min(plain.low, estimate - factor * (estimate - plain.low))
    high = max(plain.high, estimate + factor * (plain.high - estimate))
    return Interval(low, high, plain.level, method)


def variances_of(left_out: Sequence[Floats]) -> list[float]:
    """Return what each stratum adds to the variance of a statistic, by the jackknife within strata (Tukey 1958).

    Args:
        left_out: for each stratum the statistic without each of its values in turn, float64 of shape (n_i,).

    Example:
        >>> values = np.array([1.0, 2.0, 4.0])
        >>> means = (values.sum() - values) / 2
        >>> bool(np.isclose(variances_of([means])[0], values.var(ddof=1) / 3))
        True
    """
    return [float(each.var() * (len(each) - 1)) for each in left_out]


def acceleration_of(left_out: Sequence[Floats]) -> float:
    """Return how fast the standard error of a statistic changes with it (Efron 1987), 0 where no value matters.

    Args:
        left_out: as of `variances_of`.

    Example:
        >>> values = np.array([1.0, 2.0, 6.0])
        >>> round(acceleration_of([(values.sum() - values) / 2]), 3)
        0.057
    """
    away = np.concatenate([each.mean() - each for each in left_out])
    largest = np.abs(away).max()
    if largest == 0:
        return 0.0
    away /= largest
    return float((away**3).sum() / (6 * (away**2).sum() ** 1.5))
