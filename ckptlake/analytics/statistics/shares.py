"""Intervals of shares, of runs beyond a score or of pairs won, that hold where all or none of few runs are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import optimize
from scipy.special import ndtri

from ckptlake.analytics.frames import Floats

_NEAR = 1e-12


def share_interval(shares: Floats, sizes: Sequence[int], level: float) -> tuple[Floats, Floats]:
    """Return where the pooled share of runs lies, by Wilson's score interval with an effective number of runs.

    Runs vary less around the shares of their own tasks than around that of all. By the ratio of the two variances the
    pooled runs count as more (Kish 1965; Dean and Pagano 2015 for its use in Wilson's interval). For the ratio, half a
    run is added to each side of every task, so that one with all or none of few runs is not taken as certain.

    Args:
        shares: float64, shape (tasks, ...), the share on each task.
        sizes: how many runs each task has.
        level: the confidence, between 0 and 1.

    Returns:
        The lower and the upper ends, each float64 of shape (...).

    Example:
        >>> low, high = share_interval(np.array([[1.0], [1.0]]), [5, 5], 0.95)
        >>> low.round(3).tolist(), high.tolist()
        ([0.722], [1.0])
    """
    runs = np.asarray(sizes, np.float64)
    weights, pooled = runs / sum(sizes), np.tensordot(runs, shares, axes=1) / sum(sizes)
    n = sum(sizes) / _within(shares, sizes, weights, lambda share: share * (1 - share))
    z = float(ndtri((1 + level) / 2))
    middle = (pooled + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(pooled * (1 - pooled) / n + z**2 / (4 * n**2))
    return np.where(pooled <= 0, 0.0, middle - half), np.where(pooled >= 1, 1.0, middle + half)


def pairs_won_interval(shares: Sequence[float], sizes: Sequence[tuple[int, int]], level: float) -> tuple[float, float]:
    """Return where the mean share of pairs won lies: Newcombe's (2006) method 5, for the mean over tasks.

    Its ends are the shares that lie z standard errors of their own from the observed one, with the variance of Hanley
    and McNeil (1982). On several tasks the variance is that of the mean, lessened as in `share_interval` where the
    tasks differ.

    Args:
        shares: the share of pairs won on each task.
        sizes: how many runs the two have on each task.
        level: the confidence, between 0 and 1.

    Example:
        >>> [round(end, 3) for end in pairs_won_interval([1.0], [(5, 5)], 0.95)]
        [0.643, 1.0]
    """
    n, m = np.asarray(sizes, np.float64).T

    def variance(share: Floats) -> Floats:
        inner = (1 - share) / (2 - share) + share / (1 + share)
        return np.asarray(share * (1 - share) * (1 + ((n + m) / 2 - 1) * inner) / (n * m), np.float64)

    each = np.asarray(shares, np.float64)
    share, tasks = min(float(each.mean()), 1.0), len(each)
    ratio = 1.0
    if tasks > 1:
        ratio = float(_within(each, np.minimum(n, m), np.full(tasks, 1 / tasks), variance))
    z = float(ndtri((1 + level) / 2)) * math.sqrt(ratio)

    def distance(theta: float) -> float:
        spread = max(float(variance(np.full(tasks, theta)).sum()), 0.0)
        return abs(theta - share) - z * math.sqrt(spread) / tasks

    def edge(end: float) -> float:
        # Where every pair agrees the observed share is a root of its own; the other one is meant.
        inside = share + math.copysign(_NEAR, end - share) if share in (0.0, 1.0) else share
        return end if share == end else float(optimize.brentq(distance, end, inside))

    return edge(0.0), edge(1.0)


def _within(
    shares: Floats, sizes: Sequence[int] | Floats, weights: Floats, variance: Callable[[Floats], Floats]
) -> Floats:
    """Return the variance around the shares of tasks, over that around their mean: at most 1."""
    n = np.asarray(sizes, np.float64).reshape(-1, *[1] * (shares.ndim - 1))
    told = (n * shares + 0.5) / (n + 1)
    alike = np.broadcast_to(np.tensordot(weights, told, axes=1), told.shape)
    inside, around = np.tensordot(weights, variance(told), axes=1), np.tensordot(weights, variance(alike), axes=1)
    return np.asarray(np.minimum(inside / around, 1.0), np.float64)
