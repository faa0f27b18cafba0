"""Times that are known for some and known only to be longer for others: survival curves and their comparison."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ckptlake.analytics.frames import Floats
from ckptlake.analytics.libraries import need
from ckptlake.analytics.results import Interval
from ckptlake.analytics.statistics.corrections import adjusted


@dataclass(frozen=True, slots=True, eq=False)
class Durations:
    """How long each of several runs took.

    Attributes:
        times: float64, shape (n,).
        ended: bool, shape (n,): where the time is that of the event; elsewhere the run was only watched that long.
    """

    times: Floats
    ended: NDArray[np.bool_]

    def censored(self) -> stats.CensoredData:
        return stats.CensoredData(uncensored=self.times[self.ended], right=self.times[~self.ended])


@dataclass(frozen=True, slots=True, eq=False)
class Survival:
    """The share of runs still without the event, by time.

    Attributes:
        times: float64, shape (k,): the distinct times, rising.
        share: float64, shape (k,): the share without the event just after each.
        low: float64, shape (k,): lower end of its pointwise interval.
        high: float64, shape (k,): upper end.
        median: the first time at which half have the event, or None where that never comes.
        interval: of the median; its upper end is inf where the data set no bound.
    """

    times: Floats
    share: Floats
    low: Floats
    high: Floats
    median: float | None
    interval: Interval


def survival(durations: Durations, level: float = 0.95) -> Survival:
    """Return the Kaplan-Meier estimate with log-log intervals, and the median with the interval that follows.

    Source: Kaplan, E. and Meier, P. (1958), J. American Statistical Association 53; Brookmeyer, R. and Crowley, J.
    (1982), "A confidence interval for the median survival time", Biometrics 38. The estimate and its intervals are
    those of `scipy.stats.ecdf`.

    Args:
        durations: one run or more.
        level: the confidence of each interval.

    Example:
        >>> found = survival(Durations(np.array([1.0, 2.0, 3.0, 9.0]), np.array([True, True, True, False])))
        >>> found.median, found.share.tolist()
        (2.0, [0.75, 0.5, 0.25, 0.25])
    """
    estimate = stats.ecdf(durations.censored()).sf
    times, share = estimate.quantiles, estimate.probabilities
    low, high = np.ones(len(times)), np.ones(len(times))
    inside = (share > 0) & (share < 1)
    if inside.any():
        with warnings.catch_warnings():
            # scipy warns of the points where the share is 0, whose interval is set below.
            warnings.filterwarnings("ignore", "The confidence interval is undefined", RuntimeWarning)
            ends = estimate.confidence_interval(confidence_level=level, method="log-log")
        low[inside], high[inside] = ends.low.probabilities[inside], ends.high.probabilities[inside]
    # Where none is left the variance of log(-log S) is not defined; the last defined upper end still bounds it.
    low[share == 0] = 0.0
    high[share == 0] = high[inside][-1] if inside.any() else 1.0
    interval = Interval(_half(times, low), _half(times, high), level, "Brookmeyer-Crowley, log-log")
    median = _half(times, share)
    return Survival(times, share, low, high, median if np.isfinite(median) else None, interval)


def are_comparable(groups: Sequence[Durations]) -> bool:
    """Tell whether the log-rank test has something to go by.

    It has where runs of every group were still watched when the first one got there, and not all got there at once;
    otherwise its variance is 0.

    Example:
        >>> once = Durations(np.array([3.0, 3.0]), np.array([True, True]))
        >>> later = Durations(np.array([3.0, 4.0]), np.array([True, True]))
        >>> are_comparable([once, once]), are_comparable([once, later])
        (False, True)
    """
    ends = [group.times[group.ended] for group in groups]
    if not any(map(len, ends)):
        return False
    first = min(end.min() for end in ends if len(end))
    watched = [int((group.times >= first).sum()) for group in groups]
    return all(watched) and sum(int((end == first).sum()) for end in ends) < sum(watched)


def log_rank(first: Durations, second: Durations) -> tuple[float, float]:
    """Return the statistic and the two-sided p-value of the log-rank test (`scipy.stats.logrank`).

    Source: Mantel, N. (1966), Cancer Chemotherapy Reports 50.
    """
    found = stats.logrank(first.censored(), second.censored())
    return float(found.statistic), float(found.pvalue)


def log_rank_all(groups: Sequence[Durations]) -> tuple[float, float]:
    """Return chi-squared and p-value of the log-rank test that groups are all alike.

    Two groups are compared by `scipy.stats.logrank`, more by statsmodels.

    Raises:
        MissingDependencyError: there are more than two groups, and statsmodels is not installed.
    """
    if len(groups) == 2:
        statistic, p = log_rank(*groups)
        return statistic**2, p
    survfunc = need("statsmodels.duration.survfunc", "a log-rank test of several groups")
    number = np.repeat(np.arange(len(groups)), [len(group.times) for group in groups])
    times, ended = (np.concatenate(parts) for parts in zip(*((g.times, g.ended) for g in groups), strict=True))
    statistic, p = survfunc.survdiff(times, ended.astype(int), number)
    return float(statistic), float(p)


def log_rank_pairs(groups: Sequence[Durations]) -> list[tuple[int, int, float, float]]:
    """Return for each pair of groups their places, the log-rank p-value, and that value after Holm's correction.

    Source: Holm, S. (1979), Scandinavian J. Statistics 6. A pair that is not comparable (see `are_comparable`), such as
    one in which no run has the event, is left out.
    """
    pairs = [(i, j) for i, j in combinations(range(len(groups)), 2) if are_comparable([groups[i], groups[j]])]
    if not pairs:
        return []
    raw = [log_rank(groups[i], groups[j])[1] for i, j in pairs]
    corrected = adjusted(raw, "holm")
    return [(i, j, p, float(holm)) for (i, j), p, holm in zip(pairs, raw, corrected, strict=True)]


def _half(times: Floats, share: Floats) -> float:
    """Return the first time at which a share is down to a half, inf where it never is."""
    below = np.flatnonzero(share <= 0.5)
    return float(times[below[0]]) if len(below) else float("inf")
